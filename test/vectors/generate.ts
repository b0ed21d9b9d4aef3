/**
 * Makes `protocol/vectors/*.json` (all but noise.json, which is others' data), section 17 of SPEC.md and the dissector
 * `protocol/adaptnet.lua`. The vectors are made by the oracle, which must then read them as they say. `--check` writes
 * nothing and exits 1 when one differs from what it would be.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { VECTOR_FILES, judgeVectors } from '../oracle/index.ts'
import { beaconVectors } from './beacons.ts'
import { controlVectors } from './bodies.ts'
import { brokerVectors } from './broker-scripts.ts'
import { certificateVectors } from './certificates.ts'
import { clientVectors } from './client-scripts.ts'
import { dissectorText } from './dissector.ts'
import { envelopeVectors } from './envelopes.ts'
import { boxVectors, frameVectors, handshakeMessageVectors, preambleVectors, recordVectors } from './formats.ts'
import { gossipVectors } from './gossip.ts'
import { handshakeVectors } from './handshakes.ts'
import { root } from './independent-codec.ts'
import { plainHandshakeVectors } from './plain-handshakes.ts'
import { sealVectors } from './seals.ts'
import { withSession } from './session.ts'
import type { VectorFile } from './vector.ts'
import { workerVectors } from './worker-scripts.ts'

const FILES: Readonly<Record<string, () => VectorFile | Promise<VectorFile>>> = {
  preamble: preambleVectors,
  'handshake-message': handshakeMessageVectors,
  record: recordVectors,
  'sealed-record': boxVectors,
  frame: frameVectors,
  envelope: envelopeVectors,
  control: controlVectors,
  beacon: beaconVectors,
  certificate: certificateVectors,
  seal: sealVectors,
  gossip: gossipVectors,
  handshake: handshakeVectors,
  'handshake-plain': plainHandshakeVectors,
  client: clientVectors,
  worker: workerVectors,
  broker: brokerVectors,
}

/** The text of each file by its name. */
export async function vectorTexts(): Promise<Map<string, string>> {
  const texts = new Map<string, string>()
  for (const [name, make] of Object.entries(FILES)) texts.set(name, textOf(await make()))
  return texts
}

/** One vector a line: a change is then one line in a diff. */
function textOf({ vectors, ...head }: VectorFile): string {
  const fields = Object.entries(head).map(([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value)},\n`)
  const lines = vectors.map((vector) => `    ${JSON.stringify(vector)}`)
  return `{\n${fields.join('')}  "vectors": [\n${lines.join(',\n')}\n  ]\n}\n`
}

export const vectorPath = (name: string): string => join(root, 'protocol/vectors', `${name}.json`)

async function main(): Promise<void> {
  const check = process.argv.includes('--check')
  const spec = join(root, 'SPEC.md')
  const made = new Map([...(await vectorTexts())].map(([name, text]) => [vectorPath(name), text]))
  made.set(spec, withSession(readFileSync(spec, 'utf8')))
  made.set(join(root, 'protocol/adaptnet.lua'), dissectorText())
  for (const [path, text] of made) {
    if (!check) writeFileSync(path, text)
    else if (!existsSync(path) || readFileSync(path, 'utf8') !== text) {
      process.stderr.write(`${path} differs: run node build/test/vectors/generate.js\n`)
      process.exitCode = 1
    }
  }
  // What it has made, the oracle must also read, and with the codes that the vectors name.
  for (const wrong of VECTOR_FILES.flatMap(judgeVectors)) {
    process.stderr.write(`${wrong}\n`)
    process.exitCode = 1
  }
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) await main()
