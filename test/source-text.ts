/**
 * Source files as the house rules see them: what is code in them, what they import, and which rules they break. Plain
 * functions of a path and a text, so that a test can plant a fault in a string and see it found.
 */

/** From the ground up; a folder imports itself and what stands before it. Broker and node are neighbours, not layers. */
export const LAYERS: readonly string[] = [
  'protocol',
  'base',
  'identity',
  'link',
  'discovery',
  'broker',
  'node',
  'checker',
  'transport',
  'journals',
  'cli',
  'top',
]
const NEIGHBOURS: ReadonlySet<string> = new Set(['broker node', 'node broker'])
/** Files beside the folders of `lib/`. What is not listed here has no place yet. */
const LAYER_OF_FILE: Readonly<Record<string, string>> = {
  'lib/runtime.ts': 'base',
  'lib/status.ts': 'base',
  'lib/version.ts': 'base',
  'lib/history.ts': 'base',
  'lib/bucket.ts': 'base',
  'lib/index.ts': 'top',
  'lib/testing.ts': 'top',
  'lib/testing-journal.ts': 'top',
}
const IMPURE: ReadonlySet<string> = new Set(['transport', 'journals', 'cli', 'top'])
/** Packages that one file only may import. */
const SOLE_IMPORTERS: Readonly<Record<string, string>> = {
  'sodium-native': 'lib/identity/sodium.ts',
  avsc: 'protocol/avro.ts',
  'avsc/lib/types.js': 'protocol/avro.ts',
}
/** What reaches for the world without an import. */
const WORLD: readonly RegExp[] = [
  /\bprocess\./,
  /\bset(?:Timeout|Interval|Immediate)\b/,
  /\bqueueMicrotask\b/,
  /\bDate\.now\b/,
  /\bnew Date\(\s*\)/,
  /\bperformance\./,
  /\bMath\.random\b/,
  /\bcrypto\.(?:getRandomValues|randomUUID|subtle)\b/,
  /\bAbortSignal\.timeout\b/,
  /\bfetch\(/,
  /\bimport\.meta\b/,
]
const BANNED_NAMES: ReadonlySet<string> = new Set(['util', 'utils', 'helper', 'helpers', 'manager', 'data', 'misc'])
export const LINES_MAX = 500

/** The layer of a file of `protocol/` or `lib/`, or null when nobody gave it a place. */
export function layerOf(path: string): string | null {
  const [top, folder, ...rest] = path.split('/')
  if (top === 'protocol') return 'protocol'
  if (top !== 'lib' || folder === undefined) return null
  const layer = rest.length === 0 ? LAYER_OF_FILE[path] : folder
  return layer !== undefined && LAYERS.includes(layer) ? layer : null
}

/**
 * The text with comments and the insides of strings and regular expressions blanked out; line breaks stay. `keep`
 * leaves the strings in, for reading imports.
 */
export function codeOf(text: string, keep: 'strings' | 'nothing' = 'nothing'): string {
  let code = ''
  let at = 0
  // For each template literal that we are inside of: how many braces are open in its current ${ }.
  const templates: number[] = []
  const blank = (end: number): void => {
    code += text.slice(at, end).replaceAll(/[^\n]/g, ' ')
    at = end
  }
  const take = (end: number): void => {
    code += text.slice(at, end)
    at = end
  }
  const quoted = (close: string): number => {
    let end = at + 1
    while (end < text.length && text[end] !== close) end += text[end] === '\\' ? 2 : 1
    return end + 1
  }
  const template = (from: number): number => {
    let end = from
    while (end < text.length && text[end] !== '`' && !text.startsWith('${', end)) end += text[end] === '\\' ? 2 : 1
    if (text[end] === '`') return end + 1
    templates.push(0)
    return end + 2
  }
  const regex = (): number => {
    let end = at + 1
    let inClass = false
    for (; end < text.length && text[end] !== '\n'; end++) {
      if (text[end] === '\\') end += 1
      else if (text[end] === '[') inClass = true
      else if (text[end] === ']') inClass = false
      else if (text[end] === '/' && !inClass) break
    }
    return end + 1
  }
  while (at < text.length) {
    const character = text[at] as string
    if (text.startsWith('//', at)) {
      const end = text.indexOf('\n', at)
      blank(end < 0 ? text.length : end)
    } else if (text.startsWith('/*', at)) {
      const end = text.indexOf('*/', at + 2)
      blank(end < 0 ? text.length : end + 2)
    } else if (character === "'" || character === '"') {
      const end = quoted(character)
      if (keep === 'strings') take(end)
      else blank(end)
    } else if (character === '`') blank(template(at + 1))
    else if (character === '/' && /(?:^|[(,=:[!&|?{};<>]|=>|\breturn)\s*$/.test(code.slice(-40))) blank(regex())
    else {
      const depth = templates.length - 1
      if (depth >= 0 && character === '{') (templates[depth] as number)++
      if (depth >= 0 && character === '}' && templates[depth] === 0) {
        templates.pop()
        blank(template(at + 1))
      } else {
        if (depth >= 0 && character === '}') (templates[depth] as number)--
        take(at + 1)
      }
    }
  }
  return code
}

/** What a file imports, types too. */
export function importsOf(text: string): string[] {
  const code = codeOf(text, 'strings')
  const found = code.matchAll(
    /\b(?:import|export)\b[^'"`;()]*?\bfrom\s*['"]([^'"]+)['"]|\bimport\s*\(?\s*['"]([^'"]+)['"]/g,
  )
  return [...found].map((match) => (match[1] ?? match[2]) as string)
}

/** The path that a relative import names, from the root of the package. */
export function resolveImport(from: string, specifier: string): string {
  const parts = from.split('/').slice(0, -1)
  for (const part of specifier.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '.') parts.push(part)
  }
  return parts.join('/')
}

/** The rules of layers and of purity that a file of `protocol/` or `lib/` breaks. */
export function brokenLayerRules(path: string, text: string): string[] {
  const layer = layerOf(path)
  if (layer === null) return [`${path}: has no place in the order of layers (LAYERS, LAYER_OF_FILE)`]
  const broken: string[] = []
  for (const specifier of importsOf(text)) {
    if (!specifier.startsWith('.')) {
      if (specifier.startsWith('node:') && !IMPURE.has(layer)) broken.push(`${path}: a pure layer imports ${specifier}`)
      const sole = SOLE_IMPORTERS[specifier]
      if (sole !== undefined && sole !== path) broken.push(`${path}: only ${sole} imports ${specifier}`)
      continue
    }
    const target = resolveImport(path, specifier)
    const targetLayer = layerOf(target)
    if (targetLayer === null) broken.push(`${path}: imports ${target}, which has no place in the order of layers`)
    else if (LAYERS.indexOf(targetLayer) > LAYERS.indexOf(layer)) broken.push(`${path}: imports upward, ${target}`)
    else if (NEIGHBOURS.has(`${layer} ${targetLayer}`)) broken.push(`${path}: imports its neighbour, ${target}`)
  }
  if (!IMPURE.has(layer)) {
    const code = codeOf(text)
    for (const world of WORLD) {
      const found = world.exec(code)
      if (found !== null) broken.push(`${path}: a pure layer uses ${found[0]}`)
    }
  }
  return broken
}

/** The rules that hold for every source file, tests and benches too. */
export function brokenHouseRules(path: string, text: string): string[] {
  const broken: string[] = []
  const lines = text.split('\n').length - (text.endsWith('\n') ? 1 : 0)
  if (lines > LINES_MAX) broken.push(`${path}: ${lines} lines, at most ${LINES_MAX}`)
  const code = codeOf(text)
  if (/\bcatch\s*(?:\([^)]*\))?\s*\{\s*\}/.test(code)) broken.push(`${path}: an empty catch`)
  if (/\.catch\(\s*\(?\s*\w*\s*\)?\s*=>\s*\{\s*\}\s*\)/.test(code)) broken.push(`${path}: an empty catch of a promise`)
  // Written in two parts, so that this file does not find itself.
  if (new RegExp(`\\b(?:TO${'DO'}|FIX${'ME'})\\b`).test(text)) broken.push(`${path}: an unfinished place`)
  if (/\.only\(/.test(code)) broken.push(`${path}: runs one test only`)
  const name = path.split('/').at(-1) as string
  for (const word of name.split(/[-.]/))
    if (BANNED_NAMES.has(word)) broken.push(`${path}: "${word}" says nothing about what is in it`)
  return broken
}

/** The sections of SPEC.md that a text cites: `SPEC 4.1`, `SPEC 4.1 to 4.4`, `SPEC 11, 12`. */
export function citedSections(text: string): string[] {
  const cited: string[] = []
  for (const match of text.matchAll(/\bSPEC (\d+(?:\.\d+)?(?:(?:, | and | to )\d+(?:\.\d+)?)*)/g))
    cited.push(...(match[1] as string).split(/, | and | to /))
  return cited
}
