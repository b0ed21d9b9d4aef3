-- Dissector of adaptnet for Wireshark and tshark; made by test/vectors/generate.js from registry.json and schemas/.
--   tshark -X lua_script:adaptnet.lua -r FILE.pcap -Y adaptnet
-- Links in plain mode are shown whole. Of encrypted ones it shows lengths: it has no keys.

local FRAMES = { [1] = 'REQUEST', [2] = 'REPLY', [3] = 'REJECT', [4] = 'CANCEL', [5] = 'ACKNOWLEDGE', [16] = 'REGISTER', [17] = 'UNREGISTER', [18] = 'REGISTERED', [32] = 'WELCOME', [33] = 'PING', [34] = 'PONG', [35] = 'GO_AWAY', [36] = 'CLOSE', [37] = 'REKEY', [48] = 'BROKERS', [49] = 'REVOCATIONS', [50] = 'GOSSIP', [51] = 'SERVICE_KEYS' }
local FLAGS = { [1] = 'RAW', [2] = 'SEALED', [128] = 'OPTIONAL' }
local MODES = { [1] = 'noise', [2] = 'plain' }
local KINDS = { [1] = 'NOISE', [2] = 'PLAIN', [3] = 'REFUSAL' }
local CODES = { [0] = 'BYE', [1] = 'NOT_ADAPTNET', [2] = 'VERSION_UNSUPPORTED', [3] = 'MODE_REFUSED', [4] = 'HANDSHAKE_FAILED', [5] = 'HANDSHAKE_TIMEOUT', [6] = 'UNAUTHORIZED', [7] = 'RECORD_TOO_LARGE', [8] = 'RECORD_MALFORMED', [9] = 'TAG_INVALID', [10] = 'FRAME_MALFORMED', [11] = 'FRAME_TOO_LARGE', [12] = 'FRAME_UNKNOWN', [13] = 'FRAME_UNEXPECTED', [14] = 'ENVELOPE_MALFORMED', [15] = 'SENDER_SPOOFED', [16] = 'PEER_SILENT', [17] = 'SLOW_READER', [18] = 'LIMIT_EXCEEDED', [19] = 'DRAINING', [20] = 'DUPLICATE_LINK', [21] = 'INTERNAL', [22] = 'SLOW_WRITER', [64] = 'NO_WORKER', [65] = 'BUSY', [66] = 'EXPIRED', [67] = 'NOT_PERMITTED', [68] = 'NOT_STARTED', [69] = 'WORKER_LOST', [70] = 'WORKER_ERROR', [71] = 'CANCELLED', [72] = 'TOO_LARGE', [73] = 'REJECTED', [74] = 'UNCERTAIN', [75] = 'REQUEST_FORGED', [76] = 'SEAL_REQUIRED' }
local BODIES = { [3] = 'reject', [16] = 'register', [17] = 'register', [18] = 'registered', [35] = 'farewell', [36] = 'farewell', [48] = 'brokers', [49] = 'signed', [50] = 'gossip', [51] = 'service-keys' }
local SCHEMAS = {
  ['broker-record'] = { fields = { { 'certificate', 'bytes' }, { 'instance', { fixed = 4 } }, { 'incarnation', 'long' }, { 'state', 'int' }, { 'addresses', { items = { fields = { { 'host', 'string' }, { 'port', 'int' }, { 'zone', 'string' } } } } }, { 'notAfter', 'long' }, { 'software', 'string' } } },
  ['brokers'] = { fields = { { 'brokers', { items = { fields = { { 'name', 'string' }, { 'instance', { fixed = 4 } }, { 'state', 'int' }, { 'addresses', { items = { fields = { { 'host', 'string' }, { 'port', 'int' }, { 'zone', 'string' } } } } } } } } } } },
  ['certificate'] = { fields = { { 'net', { fixed = 32 } }, { 'name', 'string' }, { 'roles', 'int' }, { 'linkKey', { fixed = 32 } }, { 'signKey', { fixed = 32 } }, { 'serves', { items = 'string' } }, { 'calls', { items = 'string' } }, { 'notBefore', 'long' }, { 'notAfter', 'long' } } },
  ['envelope'] = { fields = { { 'id', { fixed = 16 } }, { 'originalId', { fixed = 16 } }, { 'receiver', 'string' }, { 'sender', 'string' }, { 'retryCount', 'int' }, { 'possibleDuplicate', 'boolean' }, { 'timeToLive', 'int' }, { 'watermark', 'long' }, { 'delivery', 'int' }, { 'headers', { items = { fields = { { 'name', 'string' }, { 'value', 'string' } } } } } } },
  ['farewell'] = { fields = { { 'code', 'int' }, { 'message', 'string' } } },
  ['gossip'] = { fields = { { 'kind', 'int' }, { 'sequence', 'long' }, { 'subject', 'string' }, { 'records', { items = 'bytes' } }, { 'accusations', { items = { fields = { { 'subject', 'string' }, { 'incarnation', 'long' }, { 'verdict', 'int' }, { 'evidence', 'int' }, { 'accuser', 'string' } } } } }, { 'sums', 'bytes' }, { 'buckets', 'bytes' }, { 'entries', { items = { fields = { { 'address', 'string' }, { 'incarnation', 'long' }, { 'gone', 'boolean' } } } } }, { 'revocations', 'long' } } },
  ['hello'] = { fields = { { 'version', 'int' }, { 'role', 'int' }, { 'instance', { fixed = 4 } }, { 'features', 'long' }, { 'payloadBytesMax', 'int' }, { 'addresses', { items = { fields = { { 'host', 'string' }, { 'port', 'int' }, { 'zone', 'string' } } } } }, { 'certificate', 'bytes' } } },
  ['register'] = { fields = { { 'service', 'string' }, { 'concurrency', 'int' }, { 'journal', 'string' }, { 'serviceKey', 'bytes' } } },
  ['registered'] = { fields = { { 'service', 'string' }, { 'code', 'int' }, { 'message', 'string' } } },
  ['reject'] = { fields = { { 'code', 'int' }, { 'retryAfter', 'int' }, { 'message', 'string' } } },
  ['revocations'] = { fields = { { 'net', { fixed = 32 } }, { 'version', 'long' }, { 'entries', { items = { fields = { { 'name', 'string' }, { 'before', 'long' } } } } } } },
  ['service-key'] = { fields = { { 'net', { fixed = 32 } }, { 'service', 'string' }, { 'epoch', 'int' }, { 'key', { fixed = 32 } }, { 'notBefore', 'long' }, { 'notAfter', 'long' } } },
  ['service-keys'] = { fields = { { 'keys', { items = 'bytes' } } } },
  ['signed'] = { fields = { { 'body', 'bytes' }, { 'signature', { fixed = 64 } } } },
}
local PLAIN = 2
local RAW, SEALED = 1, 2
local LAST_ENVELOPE = 5
local PORT = 7411

local p = Proto('adaptnet', 'adaptnet')
local F = {
  mode = ProtoField.uint8('adaptnet.mode', 'mode', base.DEC, MODES),
  lowest = ProtoField.uint8('adaptnet.version.lowest', 'lowest version'),
  highest = ProtoField.uint8('adaptnet.version.highest', 'highest version'),
  kind = ProtoField.uint8('adaptnet.handshake.kind', 'handshake message', base.DEC, KINDS),
  sealed = ProtoField.uint32('adaptnet.record.sealed', 'sealed bytes'),
  raw = ProtoField.uint32('adaptnet.record.raw', 'raw bytes'),
  box = ProtoField.bytes('adaptnet.record.box', 'box'),
  frame = ProtoField.uint8('adaptnet.frame', 'frame', base.DEC, FRAMES),
  flags = ProtoField.uint8('adaptnet.flags', 'flags', base.HEX),
  envelope_bytes = ProtoField.uint16('adaptnet.frame.envelope', 'envelope bytes'),
  payload_bytes = ProtoField.uint32('adaptnet.frame.payload', 'payload bytes'),
  payload = ProtoField.bytes('adaptnet.payload', 'payload'),
}
local list = {}
for _, field in pairs(F) do list[#list + 1] = field end

-- One field for each leaf of each schema: adaptnet.envelope.sender, adaptnet.brokers.brokers.name.
local LEAVES = {}
local function declare(path, type)
  if type.fields then
    for _, field in ipairs(type.fields) do declare(path .. '.' .. field[1], field[2]) end
  elseif type.items then declare(path, type.items)
  else
    local make = ProtoField.bytes
    if type == 'string' then make = ProtoField.string
    elseif type == 'int' then make = ProtoField.int32
    elseif type == 'long' then make = ProtoField.int64
    elseif type == 'boolean' then make = ProtoField.bool end
    LEAVES[path] = make('adaptnet.' .. path, path:match('[^.]+$'))
    list[#list + 1] = LEAVES[path]
  end
end
for name, schema in pairs(SCHEMAS) do declare(name, schema) end
p.fields = list
local malformed = ProtoExpert.new('adaptnet.malformed', 'malformed', expert.group.MALFORMED, expert.severity.ERROR)
p.experts = { malformed }

local stream_field = Field.new('tcp.stream')
-- The mode of each connection, from its preamble.
local modes = {}
function p.init() modes = {} end

-- An Avro long at 'at'; nil when it runs over 'limit'. Gives its value and where the next field begins.
local function long(tvb, at, limit)
  local value, place = 0, 1
  for index = 0, 9 do
    if at + index >= limit then return nil end
    local byte = tvb(at + index, 1):uint()
    value = value + (byte % 128) * place
    if byte < 128 then
      if value % 2 == 1 then return -(value + 1) / 2, at + index + 1 end
      return value / 2, at + index + 1
    end
    place = place * 128
  end
  return nil
end

local function int64(value)
  local high = math.floor(value / 2 ^ 32)
  return Int64.new(value - high * 2 ^ 32, high % 2 ^ 32)
end

-- Adds what stands at 'at' by its type; gives where the next one begins, or nil. 'seen' collects leaves by their path.
local function walk(tvb, at, limit, type, path, tree, seen)
  if type.fields then
    for _, field in ipairs(type.fields) do
      at = walk(tvb, at, limit, field[2], path .. '.' .. field[1], tree, seen)
      if at == nil then return nil end
    end
    return at
  end
  if type.items then
    while true do
      local count
      count, at = long(tvb, at, limit)
      if count == nil then return nil end
      if count == 0 then return at end
      if count < 0 then
        count = -count
        _, at = long(tvb, at, limit)
        if at == nil then return nil end
      end
      if count > limit - at then return nil end
      for index = 1, count do
        local sub = tree
        if type.items.fields then sub = tree:add(p, tvb(at, 0), path:match('[^.]+$') .. ' ' .. index) end
        at = walk(tvb, at, limit, type.items, path, sub, seen)
        if at == nil then return nil end
      end
    end
  end
  local leaf = LEAVES[path]
  if type.fixed then
    if at + type.fixed > limit then return nil end
    tree:add(leaf, tvb(at, type.fixed))
    return at + type.fixed
  end
  if type == 'boolean' then
    if at >= limit then return nil end
    tree:add(leaf, tvb(at, 1), tvb(at, 1):uint() ~= 0)
    return at + 1
  end
  local value, behind = long(tvb, at, limit)
  if value == nil then return nil end
  if type == 'int' or type == 'long' then
    local range = tvb(at, behind - at)
    if type == 'long' then tree:add(leaf, range, int64(value))
    else
      local item = tree:add(leaf, range, value)
      if path:match('%.code$') and CODES[value] then item:append_text(' ' .. CODES[value]) end
    end
    seen[path] = value
    return behind
  end
  if value < 0 or behind + value > limit then return nil end
  if type == 'string' then
    local text = value == 0 and '' or tvb(behind, value):string(ENC_UTF_8)
    tree:add(leaf, tvb(at, behind + value - at), text)
    seen[path] = text
  elseif value > 0 then tree:add(leaf, tvb(behind, value)) end
  return behind + value
end

local function body(tvb, at, limit, schema, tree)
  local seen = {}
  local sub = tree:add(p, tvb(at, limit - at), schema)
  local behind = walk(tvb, at, limit, SCHEMAS[schema], schema, sub, seen)
  if behind == nil then sub:add_proto_expert_info(malformed, schema .. ' cannot be read')
  elseif behind < limit then sub:add(p, tvb(behind, limit - behind), 'fields of a later revision') end
  return seen
end

local function flag_names(flags)
  local found = {}
  for bit, name in pairs(FLAGS) do
    if math.floor(flags / bit) % 2 == 1 then found[#found + 1] = name end
  end
  table.sort(found)
  return table.concat(found, ' ')
end

local function has(flags, bit) return math.floor(flags / bit) % 2 == 1 end

-- Whether the sealed part holds whole frames, as in plain mode: no box looks so by chance.
local function holds_frames(tvb, at, limit)
  while at + 8 <= limit do
    local payload = has(tvb(at + 1, 1):uint(), RAW) and 0 or tvb(at + 4, 4):uint()
    at = at + 8 + tvb(at + 2, 2):uint() + payload
  end
  return at == limit
end

local function frame(tvb, at, limit, raw_at, tree, info)
  local type, flags = tvb(at, 1):uint(), tvb(at + 1, 1):uint()
  local envelope, payload = tvb(at + 2, 2):uint(), tvb(at + 4, 4):uint()
  local outside = has(flags, RAW)
  local behind = at + 8 + envelope + (outside and 0 or payload)
  if behind > limit then
    tree:add_proto_expert_info(malformed, 'a frame runs over its record')
    return nil
  end
  local name = FRAMES[type] or ('type ' .. type)
  local sub = tree:add(p, tvb(at, behind - at), 'frame ' .. name)
  sub:add(F.frame, tvb(at, 1))
  sub:add(F.flags, tvb(at + 1, 1)):append_text(' ' .. flag_names(flags))
  sub:add(F.envelope_bytes, tvb(at + 2, 2))
  sub:add(F.payload_bytes, tvb(at + 4, 4))
  local text = name
  if envelope > 0 and type <= LAST_ENVELOPE then
    local seen = body(tvb, at + 8, at + 8 + envelope, 'envelope', sub)
    if seen['envelope.receiver'] then text = text .. ' ' .. seen['envelope.sender'] .. ' > ' .. seen['envelope.receiver'] end
  end
  local payload_at = outside and raw_at or at + 8 + envelope
  if payload > 0 then
    if BODIES[type] and not has(flags, SEALED) then
      local seen = body(tvb, payload_at, payload_at + payload, BODIES[type], sub)
      for path, value in pairs(seen) do
        if path:match('%.code$') then text = text .. ' ' .. (CODES[value] or value) end
        if path:match('^register.*%.service$') then text = text .. ' ' .. value end
      end
    else sub:add(F.payload, tvb(payload_at, payload)) end
  end
  info[#info + 1] = text
  return behind, outside and payload or 0
end

local function record(tvb, at, mode, tree, info)
  local sealed, raw = tvb(at, 4):uint(), tvb(at + 4, 4):uint()
  local sub = tree:add(p, tvb(at, 8 + sealed + raw), 'record')
  sub:add(F.sealed, tvb(at, 4))
  sub:add(F.raw, tvb(at + 4, 4))
  local limit = at + 8 + sealed
  if sealed == 0 then return end
  if mode ~= PLAIN and (mode ~= nil or not holds_frames(tvb, at + 8, limit)) then
    sub:add(F.box, tvb(at + 8, sealed))
    info[#info + 1] = 'record, encrypted'
    return
  end
  local next_at, raw_at = at + 8, limit
  while next_at ~= nil and next_at + 8 <= limit do
    local used
    next_at, used = frame(tvb, next_at, limit, raw_at, sub, info)
    if used then raw_at = raw_at + used end
  end
end

local function message(tvb, at, length, tree, info)
  local kind = tvb(at, 1):uint()
  local sub = tree:add(p, tvb(at, 3 + length), 'handshake message')
  sub:add(F.kind, tvb(at, 1))
  if KINDS[kind] == 'PLAIN' and length > 0 then body(tvb, at + 3, at + 3 + length, 'hello', sub) end
  local text = 'handshake ' .. (KINDS[kind] or kind)
  if KINDS[kind] == 'REFUSAL' and length >= 3 then
    local code = tvb(at + 3, 1):uint()
    text = text .. ' ' .. (CODES[code] or code)
  end
  info[#info + 1] = text
end

local function preamble(tvb, at, stream, tree, info)
  local sub = tree:add(p, tvb(at, 12), 'preamble')
  sub:add(F.lowest, tvb(at + 8, 1))
  sub:add(F.highest, tvb(at + 9, 1))
  sub:add(F.mode, tvb(at + 10, 1))
  modes[stream] = tvb(at + 10, 1):uint()
  info[#info + 1] = 'preamble, ' .. (MODES[modes[stream]] or '?')
end

-- Bytes of what begins at 'at', or nil when its header is not there yet. The first byte tells what it is: a record cannot
-- be so long that it is not 0, handshake messages begin with their kind, and a preamble with its magic.
local function length_of(tvb, at)
  local left = tvb:len() - at
  local first = tvb(at, 1):uint()
  if first == 0x41 then return 12 end
  if first > 0 then return left >= 3 and 3 + tvb(at + 1, 2):uint() or nil end
  return left >= 8 and 8 + tvb(at, 4):uint() + tvb(at + 4, 4):uint() or nil
end

function p.dissector(tvb, pinfo, root)
  local stream = stream_field().value
  local tree, info, at = root:add(p, tvb()), {}, 0
  pinfo.cols.protocol = 'ADAPTNET'
  while at < tvb:len() do
    local length = length_of(tvb, at)
    if length == nil or length > tvb:len() - at then
      pinfo.desegment_offset = at
      pinfo.desegment_len = length == nil and DESEGMENT_ONE_MORE_SEGMENT or length - (tvb:len() - at)
      break
    end
    local first = tvb(at, 1):uint()
    if first == 0x41 then preamble(tvb, at, stream, tree, info)
    elseif first > 0 then message(tvb, at, length - 3, tree, info)
    else record(tvb, at, modes[stream], tree, info) end
    at = at + length
  end
  if #info > 0 then pinfo.cols.info = table.concat(info, ', ') end
  return tvb:len()
end

-- On the port of brokers, and on any other where a preamble was seen.
DissectorTable.get('tcp.port'):add(PORT, p)
p:register_heuristic('tcp', function(tvb, pinfo, root)
  if tvb:len() < 12 or tvb(0, 8):string() ~= 'ADAPTNET' then return false end
  pinfo.conversation = p
  p.dissector(tvb, pinfo, root)
  return true
end)
