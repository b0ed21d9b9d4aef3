/** SPEC.md as a test reads it: its headings, and its tables as rows of cells. */

export interface SpecTable {
  /** The number of the section in which it stands, such as `4.2`. */
  section: string
  columns: string[]
  rows: string[][]
}

/** The numbers of all sections, each once. */
export function sectionsOf(spec: string): string[] {
  return [...spec.matchAll(/^#{2,3} (\d+(?:\.\d+)?) /gm)].map((match) => match[1] as string)
}

export function tablesOf(spec: string): SpecTable[] {
  const tables: SpecTable[] = []
  let section = ''
  let table: SpecTable | null = null
  for (const line of spec.split('\n')) {
    const heading = /^#{2,3} (\d+(?:\.\d+)?) /.exec(line)
    if (heading !== null) section = heading[1] as string
    if (!line.startsWith('|')) {
      table = null
      continue
    }
    const cells = line.split('|').slice(1, -1)
    const trimmed = cells.map((cell) => cell.trim())
    if (table === null) {
      table = { section, columns: trimmed, rows: [] }
      tables.push(table)
    } else if (!trimmed.every((cell) => /^-+$/.test(cell))) table.rows.push(trimmed)
  }
  return tables
}

/** The one table in a section whose first column is named `first`. */
export function tableOf(tables: readonly SpecTable[], section: string, first: string): SpecTable {
  const found = tables.filter((table) => table.section === section && table.columns[0] === first)
  if (found.length !== 1)
    throw new Error(`SPEC ${section} has ${found.length} tables whose first column is "${first}", one is wanted`)
  return found[0] as SpecTable
}

/** Its first two columns as an object of numbers. */
export function numbersOf(table: SpecTable): Record<string, number> {
  const numbers: Record<string, number> = {}
  for (const [name, number] of table.rows) {
    if (name === undefined || !/^\d+$/.test(number ?? ''))
      throw new Error(`SPEC ${table.section}: "${name}" has no number`)
    if (name in numbers) throw new Error(`SPEC ${table.section}: "${name}" stands there twice`)
    numbers[name] = Number(number)
  }
  return numbers
}
