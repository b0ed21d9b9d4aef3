"""Runs the commands of ../commands.py, which use the port and are no part of it."""
from commands import main
main()
