"""The commands `call` and `serve`, with the options that those of the library have: programs that use the port."""
import argparse
import asyncio
import signal
import subprocess
import sys

from adaptnet.client import Client
from adaptnet.codec import Failure
from adaptnet.node import Node


async def call(options):
    async with Client(options.identity, options.broker, options.mode) as client:
        payload = options.text.encode() if options.text is not None else sys.stdin.buffer.read()
        reply = await client.call(options.service, payload, deadline=options.deadline / 1000)
        sys.stdout.buffer.write(reply)


async def serve(options):
    async def handler(payload, request):
        process = await asyncio.create_subprocess_exec(
            *options.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        answer, _ = await process.communicate(payload)
        if process.returncode:
            raise RuntimeError(f'{options.command[0]} ended with {process.returncode}')
        return answer
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Node(options.identity, options.broker, options.mode) as node:
        await node.serve(options.service, handler, options.concurrency)
        print(f'serving {options.service} as {node.address}', flush=True)
        await stop.wait()


def main():
    parser = argparse.ArgumentParser(prog='python3 -m adaptnet')
    commands = parser.add_subparsers(required=True)
    for run in (call, serve):
        command = commands.add_parser(run.__name__)
        command.set_defaults(run=run)
        command.add_argument('service')
        command.add_argument('--identity', required=True, metavar='FILE')
        command.add_argument('--broker', action='append', required=True, metavar='HOST:PORT')
        command.add_argument('--mode', choices=('noise', 'plain'), default='noise')
        if run is call:
            command.add_argument('--text')
            command.add_argument('--deadline', type=int, default=2000, metavar='MS')
        else:
            command.add_argument('--concurrency', type=int, default=64)
            command.add_argument('command', nargs='+', help='gets the payload, prints the answer')
    options = parser.parse_args()
    try:
        asyncio.run(options.run(options))
    except Failure as failure:
        sys.exit(f'adaptnet: {failure}')
