/** What the README shows is run as it stands, and what it names is there. */
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = dirname(fileURLToPath(import.meta.resolve('adaptnet/package.json')))
const readme = readFileSync(join(root, 'README.md'), 'utf8')

function run(file: string): Promise<{ code: number | null; output: string }> {
  const child = spawn(process.execPath, [file], { cwd: root })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()))
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, output })))
}

t.test('the example runs and prints its greeting', async (t) => {
  const example = /```ts\n([\s\S]*?)```/.exec(readme)?.[1]
  if (example === undefined) return void t.fail('the README has no example')
  t.ok(example.trim().split('\n').length <= 12, 'it is short')
  // Inside the package, so that it imports adaptnet by the name that users write.
  const folder = join(root, 'build', 'readme')
  mkdirSync(folder, { recursive: true })
  const file = join(folder, `example-${process.pid}.mjs`)
  writeFileSync(file, example)
  t.teardown(() => rmSync(file, { force: true }))
  const { code, output } = await run(file)
  t.equal(code, 0, output)
  t.match(output, /^hello, world from worker\/[0-9a-f]{8} by broker-2\/[0-9a-f]{8}\n$/)
})

t.test('every file that the documents link to exists', async (t) => {
  for (const document of ['README.md', 'lib/DELIVERY.md', 'SPEC.md', 'SECURITY.md', 'CHANGELOG.md']) {
    const text = readFileSync(join(root, document), 'utf8')
    for (const [, link = ''] of text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g))
      if (!/^https?:/.test(link)) t.ok(existsSync(join(root, dirname(document), link)), `${document}: ${link}`)
  }
})

t.test('every script that the README names is there', async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>
  }
  for (const [, name = ''] of readme.matchAll(/npm run ([\w:-]+)/g)) t.ok(scripts[name], name)
})
