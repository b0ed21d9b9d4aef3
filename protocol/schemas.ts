/**
 * The Avro schemas as literals, so that the codec needs no file at run time. The same schemas stand in
 * `schemas/*.avsc` for ports and tools; a test compares the two.
 */

const fixed = (name: string, size: number): object => ({ type: 'fixed', name, size })
const array = (items: object | string): object => ({ type: 'array', items })

const address: object = {
  type: 'record',
  name: 'Address',
  fields: [
    { name: 'host', type: 'string' },
    { name: 'port', type: 'int' },
    { name: 'zone', type: 'string' },
  ],
}

/** SPEC 3.3: field order is the wire's order; the broker reads the fields up to `timeToLive` by their place. */
export const ENVELOPE_SCHEMA: object = {
  type: 'record',
  name: 'Envelope',
  namespace: 'adaptnet',
  fields: [
    { name: 'id', type: fixed('Id', 16) },
    { name: 'originalId', type: 'Id' },
    { name: 'receiver', type: 'string' },
    { name: 'sender', type: 'string' },
    { name: 'retryCount', type: 'int' },
    { name: 'possibleDuplicate', type: 'boolean' },
    { name: 'timeToLive', type: 'int' },
    { name: 'watermark', type: 'long' },
    { name: 'delivery', type: 'int' },
    {
      name: 'headers',
      type: array({
        type: 'record',
        name: 'Header',
        fields: [
          { name: 'name', type: 'string' },
          { name: 'value', type: 'string' },
        ],
      }),
    },
  ],
}

/** SPEC 4.3: the payload of handshake messages 2 and 3. */
export const HELLO_SCHEMA: object = {
  type: 'record',
  name: 'Hello',
  namespace: 'adaptnet',
  fields: [
    { name: 'version', type: 'int' },
    { name: 'role', type: 'int' },
    { name: 'instance', type: fixed('Instance', 4) },
    { name: 'features', type: 'long' },
    { name: 'payloadBytesMax', type: 'int' },
    { name: 'addresses', type: array(address) },
    { name: 'certificate', type: 'bytes' },
  ],
}

/** SPEC 5.2: the bytes that the authority signs. */
export const CERTIFICATE_SCHEMA: object = {
  type: 'record',
  name: 'Certificate',
  namespace: 'adaptnet',
  fields: [
    { name: 'net', type: fixed('Key', 32) },
    { name: 'name', type: 'string' },
    { name: 'roles', type: 'int' },
    { name: 'linkKey', type: 'Key' },
    { name: 'signKey', type: 'Key' },
    { name: 'serves', type: array('string') },
    { name: 'calls', type: array('string') },
    { name: 'notBefore', type: 'long' },
    { name: 'notAfter', type: 'long' },
  ],
}

/** SPEC 5.3: certificates of `name` made up to and including `before` (unix ms) are revoked. */
export const REVOCATIONS_SCHEMA: object = {
  type: 'record',
  name: 'Revocations',
  namespace: 'adaptnet',
  fields: [
    { name: 'net', type: fixed('Key', 32) },
    { name: 'version', type: 'long' },
    {
      name: 'entries',
      type: array({
        type: 'record',
        name: 'Revocation',
        fields: [
          { name: 'name', type: 'string' },
          { name: 'before', type: 'long' },
        ],
      }),
    },
  ],
}

/** SPEC 5.6: the bytes that the authority signs for a service's key. */
export const SERVICE_KEY_SCHEMA: object = {
  type: 'record',
  name: 'ServiceKey',
  namespace: 'adaptnet',
  fields: [
    { name: 'net', type: fixed('Key', 32) },
    { name: 'service', type: 'string' },
    { name: 'epoch', type: 'int' },
    { name: 'key', type: 'Key' },
    { name: 'notBefore', type: 'long' },
    { name: 'notAfter', type: 'long' },
  ],
}

/** SPEC 5.6: the body of SERVICE_KEYS; each entry is a signed ServiceKey. */
export const SERVICE_KEYS_SCHEMA: object = {
  type: 'record',
  name: 'ServiceKeys',
  namespace: 'adaptnet',
  fields: [{ name: 'keys', type: array('bytes') }],
}

/** SPEC 5.1: a body and the authority's Ed25519 signature over its context and the body. */
export const SIGNED_SCHEMA: object = {
  type: 'record',
  name: 'Signed',
  namespace: 'adaptnet',
  fields: [
    { name: 'body', type: 'bytes' },
    { name: 'signature', type: fixed('Signature', 64) },
  ],
}

/** SPEC 6.1: the body of REGISTER; UNREGISTER sends a concurrency of 0. */
export const REGISTER_SCHEMA: object = {
  type: 'record',
  name: 'Register',
  namespace: 'adaptnet',
  fields: [
    { name: 'service', type: 'string' },
    { name: 'concurrency', type: 'int' },
    { name: 'journal', type: 'string' },
    { name: 'serviceKey', type: 'bytes' },
  ],
}

/** SPEC 6.1: the body of REGISTERED; code 0 says that the service is served from now on. */
export const REGISTERED_SCHEMA: object = {
  type: 'record',
  name: 'Registered',
  namespace: 'adaptnet',
  fields: [
    { name: 'service', type: 'string' },
    { name: 'code', type: 'int' },
    { name: 'message', type: 'string' },
  ],
}

/** SPEC 6.4: the payload of REJECT. */
export const REJECT_SCHEMA: object = {
  type: 'record',
  name: 'Reject',
  namespace: 'adaptnet',
  fields: [
    { name: 'code', type: 'int' },
    { name: 'retryAfter', type: 'int' },
    { name: 'message', type: 'string' },
  ],
}

/** SPEC 4.6: the body of GO_AWAY and CLOSE. */
export const FAREWELL_SCHEMA: object = {
  type: 'record',
  name: 'Farewell',
  namespace: 'adaptnet',
  fields: [
    { name: 'code', type: 'int' },
    { name: 'message', type: 'string' },
  ],
}

/** SPEC 7.1: the body of BROKERS. */
export const BROKERS_SCHEMA: object = {
  type: 'record',
  name: 'Brokers',
  namespace: 'adaptnet',
  fields: [
    {
      name: 'brokers',
      type: array({
        type: 'record',
        name: 'Broker',
        fields: [
          { name: 'name', type: 'string' },
          { name: 'instance', type: fixed('Instance', 4) },
          { name: 'state', type: 'int' },
          { name: 'addresses', type: array(address) },
        ],
      }),
    },
  ],
}

/** SPEC 7.2: the bytes that a broker signs about itself. */
export const BROKER_RECORD_SCHEMA: object = {
  type: 'record',
  name: 'BrokerRecord',
  namespace: 'adaptnet',
  fields: [
    { name: 'certificate', type: 'bytes' },
    { name: 'instance', type: fixed('Instance', 4) },
    { name: 'incarnation', type: 'long' },
    { name: 'state', type: 'int' },
    { name: 'addresses', type: array(address) },
    { name: 'notAfter', type: 'long' },
    { name: 'software', type: 'string' },
  ],
}

/** SPEC 7.2: the body of GOSSIP. */
export const GOSSIP_SCHEMA: object = {
  type: 'record',
  name: 'Gossip',
  namespace: 'adaptnet',
  fields: [
    { name: 'kind', type: 'int' },
    { name: 'sequence', type: 'long' },
    { name: 'subject', type: 'string' },
    { name: 'records', type: array('bytes') },
    {
      name: 'accusations',
      type: array({
        type: 'record',
        name: 'Accusation',
        fields: [
          { name: 'subject', type: 'string' },
          { name: 'incarnation', type: 'long' },
          { name: 'verdict', type: 'int' },
          { name: 'evidence', type: 'int' },
          { name: 'accuser', type: 'string' },
        ],
      }),
    },
    { name: 'sums', type: 'bytes' },
    { name: 'buckets', type: 'bytes' },
    {
      name: 'entries',
      type: array({
        type: 'record',
        name: 'Entry',
        fields: [
          { name: 'address', type: 'string' },
          { name: 'incarnation', type: 'long' },
          { name: 'gone', type: 'boolean' },
        ],
      }),
    },
    { name: 'revocations', type: 'long' },
  ],
}

/** File name in `schemas/` and its schema. */
export const SCHEMAS: Readonly<Record<string, object>> = {
  envelope: ENVELOPE_SCHEMA,
  hello: HELLO_SCHEMA,
  certificate: CERTIFICATE_SCHEMA,
  revocations: REVOCATIONS_SCHEMA,
  signed: SIGNED_SCHEMA,
  'service-key': SERVICE_KEY_SCHEMA,
  'service-keys': SERVICE_KEYS_SCHEMA,
  register: REGISTER_SCHEMA,
  registered: REGISTERED_SCHEMA,
  reject: REJECT_SCHEMA,
  farewell: FAREWELL_SCHEMA,
  brokers: BROKERS_SCHEMA,
  'broker-record': BROKER_RECORD_SCHEMA,
  gossip: GOSSIP_SCHEMA,
}
