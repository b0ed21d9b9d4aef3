import type { Mutant } from './simulation/planted-bugs.ts'

/** Mistakes that a port of the broker might make, planted in ours: each must be found by a case of the judge. */
export const FAULTS: readonly Mutant[] = [
  {
    name: 'a raw payload in the clear is taken in noise mode',
    file: 'link/link.js',
    search: "throw new AdaptnetError('FRAME_MALFORMED', 'a RAW payload",
    replace: "void new AdaptnetError('FRAME_MALFORMED', 'a RAW payload",
  },
  {
    name: 'raw bytes that no frame announces are passed over',
    file: 'link/link.js',
    search: 'if (raw !== rawEnd)',
    replace: 'if (false)',
  },
  {
    name: 'every unknown frame is skipped',
    file: 'link/link.js',
    search: 'if ((frame.flags & FrameFlag.OPTIONAL) === 0)',
    replace: 'if (false)',
  },
  {
    name: 'PONG without the body of the PING',
    file: 'link/link.js',
    search: 'Buffer.from(frame.payloadView())',
    replace: 'Buffer.alloc(0)',
  },
  {
    name: 'a record may be twice as long',
    file: 'link/record-reader.js',
    search: 'if (sealed > RECORD_SEALED_BYTES_MAX)',
    replace: 'if (sealed > 2 * RECORD_SEALED_BYTES_MAX)',
  },
  {
    name: 'a record that is not finished is waited for, for ever',
    file: 'link/link.js',
    search: 'recordDeadlineMs !== null && nowMs >= recordDeadlineMs',
    replace: 'false',
  },
  {
    name: 'the mode of the preamble is not judged',
    file: 'link/handshake.js',
    search: 'if (preamble.mode !== this.#options.mode)',
    replace: 'if (false)',
  },
  {
    name: 'the prologue is what the preamble should be, not what came',
    file: 'link/handshake.js',
    search: 'this.#newNoise(Buffer.from(bytes))',
    replace: 'this.#newNoise(encodePreamble({ versionLowest: 1, versionHighest: 1, mode: 1 }))',
  },
  {
    name: 'a handshake message may have 64 KiB',
    file: 'link/handshake.js',
    search: 'if (length > HANDSHAKE_BYTES_MAX)',
    replace: 'if (length > 0xffff)',
  },
  {
    name: 'the preamble is judged when it is whole, not as it comes',
    file: 'link/handshake.js',
    search: "if (this.#awaiting === 'preamble' && !beginsPreamble",
    replace: "if (this.#awaiting === 'preamble' && this.#have === PREAMBLE_BYTES && !beginsPreamble",
  },
  {
    name: 'the features of a Hello must be 0',
    file: 'link/handshake.js',
    search: ': hello.version >= this.#version',
    replace: ': hello.version >= this.#version && hello.features === 0',
  },
  {
    name: 'certificates never expire',
    file: 'identity/certificate.js',
    search: 'if (nowMs > notAfter + CLOCK_TOLERANCE_MS)',
    replace: 'if (false)',
  },
  {
    name: 'whoever shows a certificate is its holder',
    file: 'identity/certificate.js',
    search: '!equal(options.linkKey, certificate.linkKey)',
    replace: 'false',
  },
  {
    name: 'the role is not compared with the certificate',
    file: 'identity/certificate.js',
    search: '(certificate.roles & options.role) === 0',
    replace: 'false',
  },
  {
    name: 'strangers are told INTERNAL, not UNAUTHORIZED',
    file: 'link/link.js',
    search: "? 'UNAUTHORIZED' : 'INTERNAL'",
    replace: "? 'INTERNAL' : 'INTERNAL'",
  },
  {
    name: 'the sender is not compared with the address of the link',
    file: 'broker/forward.js',
    search: 'if (!link.isAddress(',
    replace: 'if (false && !link.isAddress(',
  },
  {
    name: 'every node may call every service',
    file: 'broker/forward.js',
    search: 'if (!client.mayCall(',
    replace: 'if (false && !client.mayCall(',
  },
  {
    name: 'every node may serve every service',
    file: 'broker/broker.js',
    search: '|| !mayServe(link.peer.certificate, service)',
    replace: '',
  },
  {
    name: "a CANCEL reaches another client's request",
    file: 'broker/outstanding.js',
    search: 'this.#matches(slot, bytes, idStart) && this.#clients[slot]?.address === client.address',
    replace: 'this.#matches(slot, bytes, idStart)',
  },
  {
    name: 'any worker may answer',
    file: 'broker/outstanding.js',
    search: 'this.#offers[slot]?.worker === worker &&',
    replace: '',
  },
  {
    name: 'a reply is taken whoever its receiver is',
    file: 'broker/outstanding.js',
    search: 'this.#clients[slot]?.isAddress(bytes, receiverStart, receiverEnd) === true',
    replace: 'true',
  },
  {
    name: 'the queue of a service has no end',
    file: 'broker/services.js',
    search: 'this.queued >= QUEUE_REQUESTS_MAX ||',
    replace: '',
  },
  {
    name: 'the time to live is not lowered by the wait in the queue',
    file: 'broker/forward.js',
    search: 'if (timeToLiveMs < route.timeToLiveMs)',
    replace: 'if (false)',
  },
  {
    name: 'a lowered time to live does not keep its width',
    file: 'protocol/route.js',
    search: 'bytes[at] = (zigzag % 128) | 0x80',
    replace: 'bytes[at] = zigzag % 128',
  },
  {
    name: 'a boolean may be any byte',
    file: 'protocol/route.js',
    search: '|| duplicate > 1',
    replace: '',
  },
  {
    name: 'nobody is told that a worker is lost',
    file: 'broker/forward.js',
    search: 'if (link.work > 0)',
    replace: 'if (false)',
  },
  {
    name: 'a node that leaves may still register',
    file: 'broker/broker.js',
    search: 'if (link.link.draining)',
    replace: 'if (false)',
  },
  {
    name: 'services of a link are not counted',
    file: 'broker/broker.js',
    search: 'link.offers.size >= SERVICES_PER_LINK_MAX',
    replace: 'false',
  },
  {
    name: 'a worker that has work is asked as seldom as an idle one',
    file: 'link/keepalive.js',
    search: 'busy ? KEEPALIVE_BUSY_MS : KEEPALIVE_IDLE_MS',
    replace: 'KEEPALIVE_IDLE_MS',
  },
  {
    name: 'a worker gets one request more than its concurrency',
    file: 'broker/services.js',
    search: 'this.outstanding < this.concurrency',
    replace: 'this.outstanding <= this.concurrency',
  },
  {
    name: 'a retry goes to any worker',
    file: 'broker/forward.js',
    search: 'if (route.retryCount > 0 && this.#joinEarlier',
    replace: 'if (false && this.#joinEarlier',
  },
  {
    name: 'SEALED is lost on the way',
    file: 'broker/forward.js',
    search: 'to.link.sendFrame(frame.type, frame.flags,',
    replace: 'to.link.sendFrame(frame.type, 0,',
  },
  {
    name: 'a node may tell of brokers',
    file: 'broker/broker-membership.js',
    search: "throw new AdaptnetError('FRAME_UNEXPECTED', `a frame of brokers came",
    replace: "void new AdaptnetError('FRAME_UNEXPECTED', `a frame of brokers came",
  },
  {
    name: 'an older list of revocations replaces a newer one',
    file: 'identity/revocation-list.js',
    search: 'list.version <= this.#list.version',
    replace: 'false',
  },
  {
    name: 'the newest key of a service is told, though not every worker opens it',
    file: 'broker/service-keys.js',
    search: 'brought.epoch < (lowest?.epoch ?? Infinity)',
    replace: 'brought.epoch > (lowest?.epoch ?? 0)',
  },
]

const DIALLER_FAULTS: readonly Mutant[] = [
  {
    name: 'a dialler takes frames before WELCOME',
    file: 'link/link.js',
    search: "if (this.#state.name === 'awaiting-welcome' && frame.type !==",
    replace: 'if (false && frame.type !==',
  },
  {
    name: 'a dialler stays linked to a broker that a list names',
    file: 'node/broker-links.js',
    search: 'if (peer === null || !this.revocations.names(peer.certificate))',
    replace: 'if (true)',
  },
  {
    name: 'a dialler links to a broker that a list names',
    file: 'node/broker-links.js',
    search: 'revocations: this.revocations.list,',
    replace: 'revocations: null,',
  },
  {
    name: 'a dialler does not ask whether it is a broker that it has reached',
    file: 'node/broker-links.js',
    search: 'if (hello.role !== Role.broker)',
    replace: 'if (false)',
  },
  {
    name: 'a dialler takes any version that the acceptor says',
    file: 'link/handshake.js',
    search: 'hello.version >= VERSION_LOWEST && hello.version <= VERSION_HIGHEST',
    replace: 'true',
  },
  {
    name: 'a dialler shows itself to whoever shows the certificate of a broker',
    file: 'identity/certificate.js',
    search: '!equal(options.linkKey, certificate.linkKey)',
    replace: 'false',
  },
]

/** The same for a worker. */
export const WORKER_FAULTS: readonly Mutant[] = [
  ...DIALLER_FAULTS,
  {
    name: 'finished requests run again',
    file: 'node/worker.js',
    search: 'if (known !== null) {',
    replace: 'if (known !== null && known.running !== null) {',
  },
  {
    name: 'the watermark is ignored',
    file: 'node/seen-requests.js',
    search: '(counter < session.watermark ?',
    replace: '(false ?',
  },
  {
    name: 'a receiver with any journal is taken',
    file: 'node/worker.js',
    search: 'pin !== (exactly ? served.journal.id : undefined)',
    replace: 'false',
  },
  {
    name: 'an envelope whose end cannot be read is taken',
    file: 'node/worker.js',
    search: 'if (!readable)',
    replace: 'if (false)',
  },
]

/** The same for a client. */
export const CLIENT_FAULTS: readonly Mutant[] = [
  ...DIALLER_FAULTS,
  {
    name: 'a retry behind WORKER_LOST says that nobody saw the request',
    file: 'node/requests.js',
    search: "if (rejection.code === 'WORKER_LOST')",
    replace: 'if (false)',
  },
  {
    name: 'BUSY is answered at once',
    file: 'node/requests.js',
    search: 'Math.max(this.#backoffMs(request), rejection.retryAfterMs)',
    replace: '0',
  },
  {
    name: 'what has expired is asked again',
    file: 'node/requests.js',
    search: "case 'BUSY':",
    replace: "case 'BUSY': case 'EXPIRED':",
  },
  {
    name: 'a sealed reply is taken for an answer in the clear',
    file: 'node/sealed-exchange.js',
    search: "throw new AdaptnetError('REPLY_FORGED', 'the reply is sealed,",
    replace: "void new AdaptnetError('REPLY_FORGED', 'the reply is sealed,",
  },
  {
    name: 'the watermark stands still',
    file: 'node/attempt-writer.js',
    search: 'Math.ceil(request.deadlineMs - nowMs), watermark,',
    replace: 'Math.ceil(request.deadlineMs - nowMs), 1,',
  },
]
