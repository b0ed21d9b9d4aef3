import { BEACON_PORT } from '../../protocol/constants.ts'
import type { BeaconOptions } from '../transport/beacon-sockets.ts'
import { UsageError, parseInteger } from './command.ts'

/** The options by which commands find brokers on the local network. */
export const BEACON_OPTIONS: {
  readonly beacon: { readonly type: 'boolean' }
  readonly 'beacon-port': { readonly type: 'string' }
  readonly 'beacon-interface': { readonly type: 'string'; readonly multiple: true }
} = {
  beacon: { type: 'boolean' },
  'beacon-port': { type: 'string' },
  'beacon-interface': { type: 'string', multiple: true },
}

/** Their lines in the help of a command whose texts begin at this column. */
export function beaconHelp(column: number): string {
  const line = (option: string, text: string): string => `  ${option}`.padEnd(column) + text
  return [
    line('--beacon-port N', `UDP port of the beacons, ${BEACON_PORT} by default`),
    '  --beacon-interface NAME',
    line('', 'the interface to use; may be given again; all by default'),
  ].join('\n')
}

interface BeaconValues {
  beacon?: boolean
  'beacon-port'?: string
  'beacon-interface'?: string[]
}

/** Throws UsageError for an option that says nothing without --beacon. */
export function beaconOf(values: BeaconValues): boolean | BeaconOptions {
  const port = parseInteger(values['beacon-port'], '--beacon-port', { min: 1, max: 65_535 })
  const interfaces = values['beacon-interface']
  if (values.beacon === true)
    return { ...(port === undefined ? {} : { port }), ...(interfaces === undefined ? {} : { interfaces }) }
  for (const [option, value] of [
    ['--beacon-port', port],
    ['--beacon-interface', interfaces],
  ] as const)
    if (value !== undefined) throw new UsageError(`${option} needs --beacon`)
  return false
}
