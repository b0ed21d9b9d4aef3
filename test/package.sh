#!/bin/bash
# Checks the package as a user gets it: publint, are-the-types-wrong, and a packed tarball installed and imported in an
# empty folder, where the command must start too.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npx publint --strict
npm pack --silent --ignore-scripts --pack-destination "$work" >/dev/null
npx attw "$work"/adaptnet-*.tgz --profile esm-only --format ascii --no-emoji
mkdir "$work/user"
cd "$work/user"
npm init --yes --silent >/dev/null
npm install --silent --no-audit --no-fund "$work"/adaptnet-*.tgz
cat >user.mjs <<'JS'
import { connect, createBroker, AdaptnetError, VERSION } from 'adaptnet'
import { createTestNet } from 'adaptnet/testing'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
if (typeof connect !== 'function' || typeof createBroker !== 'function') throw new Error('a public name is missing')
if (!(new AdaptnetError('BUSY') instanceof Error)) throw new Error('AdaptnetError is not an Error')
JSON.parse(readFileSync(fileURLToPath(import.meta.resolve('adaptnet/protocol/registry.json')), 'utf8'))
await within(await createTestNet(), async (net) => {
  const worker = await net.connect('worker')
  await worker.serve('echo', (request) => request.payload)
  const client = await net.connect('client')
  const reply = await client.request('echo', 'packed')
  if (reply.payload.toString() !== 'packed') throw new Error('the reply is wrong')
})
console.log(`adaptnet ${VERSION}: installed, imported, answered`)
async function within(net, use) {
  try {
    await use(net)
  } finally {
    await net.close()
  }
}
JS
node user.mjs
npx --no-install adaptnet --version
