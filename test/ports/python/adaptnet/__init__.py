from .client import Client
from .codec import Failure
from .identity import Identity
from .node import Node
from .worker import Worker

__all__ = ['Client', 'Failure', 'Identity', 'Node', 'Worker']
