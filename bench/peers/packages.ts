import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath, pathToFileURL } from 'node:url'

/** The folder of the peers' own package.json, beside the sources: adaptnet's own install stays small. */
const FOLDER = fileURLToPath(new URL('../../../bench/peers/', import.meta.url))

/** Loads a peer's client library. Types are given by the caller: nothing of it is installed where they are compiled. */
export async function loadPackage<Module>(name: string): Promise<Module> {
  const resolve = createRequire(`${FOLDER}package.json`).resolve
  const loaded = (await import(pathToFileURL(resolve(name)).href)) as { default?: Module }
  return { ...loaded.default, ...loaded } as Module
}

/** Installs the client libraries as their lock file has them, once. */
export function installPackages(): void {
  if (existsSync(`${FOLDER}node_modules`)) return
  process.stderr.write(`installing the peers' clients in ${FOLDER}\n`)
  // Moleculer names, as optional peers, older majors of libraries that are measured here by themselves.
  const { status } = spawnSync('npm', ['ci', '--legacy-peer-deps', '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: FOLDER,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  if (status !== 0) throw new Error(`npm ci in ${FOLDER} failed`)
}

/** Whether a server's program is on this machine. */
export function isInstalled(command: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${command}`], { stdio: 'ignore' }).status === 0
}
