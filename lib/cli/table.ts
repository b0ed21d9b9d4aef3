export type Cell = string | number

/** Lines of a table: the first column to the left, the others to the right where they hold numbers. */
export function formatTable(headers: readonly string[], rows: readonly (readonly Cell[])[]): string[] {
  const right = headers.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === 'number'))
  const texts = [headers, ...rows].map((row) => row.map(String))
  const widths = headers.map((_, column) => Math.max(...texts.map((row) => row[column]?.length ?? 0)))
  return texts.map((row) =>
    row
      .map((text, column) =>
        right[column] === true ? text.padStart(widths[column] ?? 0) : text.padEnd(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  )
}
