import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './vectors/independent-codec.ts'

/** Whether a file of tests has one of this title: for texts that name the tests by which they hold. */
export function hasTest(file: string, title: string): boolean {
  const path = join(root, 'test', file)
  if (!existsSync(path) || !file.endsWith('.test.ts')) return false
  const quoted = [`'${title.replaceAll("'", "\\'")}'`, `"${title}"`]
  const source = readFileSync(path, 'utf8')
  return quoted.some((name) =>
    [`test(${name},`, `test(\n  ${name},`, `test(\n    ${name},`].some((call) => source.includes(call)),
  )
}
