"""One side of an interop test (test/ports.test.ts): told what to be by JSON, it tells what happens in lines of JSON."""
import asyncio
import collections
import hashlib
import json
import signal
import sys

from adaptnet import link
from adaptnet.client import Client
from adaptnet.codec import Failure
from adaptnet.node import Node


def tell(kind, **fields):
    print(json.dumps({'type': kind, **fields}), flush=True)


async def client(node, plan):
    ends, wrong, started = collections.Counter(), 0, 0

    def stop():
        plan['calls'] = min(plan['calls'], started + 200)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    while len(node.links) < plan.get('links', 1):
        await asyncio.sleep(0.005)

    async def caller_in_turn():
        nonlocal wrong, started
        while started < plan['calls']:
            started += 1
            payload = (b'%d ' % started) * plan.get('size', 1)
            if started == 200:
                tell('loaded')
            try:
                reply = await node.call(plan['service'], payload, **plan['options'])
                ends['replied'] += 1
                wrong += reply != hashlib.sha256(payload).digest()
            except Failure as failure:
                ends[failure.code] += 1
                if ends.total() == 1:
                    tell('failed', code=failure.code, message=failure.message)
    await asyncio.gather(*(caller_in_turn() for _ in range(plan['concurrency'])))
    return lambda: tell('done', asked=started, wrong=wrong, ends=ends)


async def worker(node, plan):
    runs = collections.Counter()

    async def handler(payload, request):
        runs[request['id']] += 1
        if payload == b'fail':
            raise ValueError('no such thing')
        await asyncio.sleep(plan.get('work', 0.004))
        return payload if plan['service'] == 'echo' else hashlib.sha256(payload).digest()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await node.serve(plan['service'], handler, **plan.get('options', {}))
    while len(node.links) < plan.get('links', 1):
        await asyncio.sleep(0.005)
    tell('serving', address=node.address)
    await stop.wait()
    return lambda: tell('done', runs=runs.total(), twice=sum(count > 1 for count in runs.values()))


async def main(plan):
    link.REKEY_S = plan.get('rekey', 1000 * link.REKEY_S) / 1000
    role, act = {'client': (Client, client), 'worker': (Node, worker)}[plan['role']]
    async with role(plan['identity'], plan['brokers'], plan.get('mode', 'noise')) as node:
        done = await act(node, plan)
    done()


asyncio.run(main(json.loads(sys.argv[1])))
