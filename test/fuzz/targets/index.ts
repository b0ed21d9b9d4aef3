import type { Target } from '../target.ts'
import { bodyTargets } from './bodies.ts'
import { differentialTargets } from './differential.ts'
import { discoveryTargets } from './discovery.ts'
import { linkTarget } from './links.ts'
import { machineTargets } from './machines.ts'
import { routeTarget } from './routes.ts'
import { sealTarget, signedTarget } from './seals.ts'
import { handshakeTarget, preambleTarget, recordTarget, secretHandshakeTarget } from './streams.ts'
import { addressTarget, captureTarget, fileTarget, operandTarget, reportTarget } from './texts.ts'

export const targets: readonly Target[] = [
  preambleTarget,
  handshakeTarget,
  secretHandshakeTarget,
  recordTarget,
  routeTarget,
  ...bodyTargets,
  ...discoveryTargets,
  signedTarget,
  sealTarget,
  fileTarget,
  addressTarget,
  operandTarget,
  reportTarget,
  captureTarget,
  linkTarget,
  ...machineTargets,
  ...differentialTargets,
]
