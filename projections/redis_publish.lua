-- Publishes one ledger version whole, or writes nothing and says why.
--
-- KEYS: state, summary, transitions, hold, lease, fence; then a throttle key for each symbol, then a
--       kpi_throttle key for each; then both for each retired symbol.
-- ARGV: 1, one JSON object; `RedisPublisher._payload` makes it.
-- Returns {outcome, detail, then key, symbol, found, expected of every foreign write}.
--
-- Everything is read and judged before the first write, so that it can't end half-way. Executing it
-- again after a lost reply changes nothing but the time to live.

local message = cjson.decode(ARGV[1])
local STATE, SUMMARY, TRANSITIONS, HOLD, LEASE, FENCE = unpack(KEYS, 1, 6)
local symbols, retired = message.symbols, message.retired
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function throttle_key(index) return KEYS[6 + index] end
local function kpi_key(index) return KEYS[6 + #symbols + index] end

-- What a key holds as text; nil if it isn't there. Of another type, it is something unreadable.
local function text_of(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then return '(not a string)' end
  return value or nil
end

local function hash_of(key)
  local fields, flat = {}, redis.pcall('HGETALL', key)
  for index = 1, #flat, 2 do fields[flat[index]] = flat[index + 1] end
  return fields
end

local RANKS = { FROZEN = 0, COOLDOWN = 1, ACTIVE = 2 }

-- How much trading a value allows; nil if it can't be read.
local function worth(key, text)
  if text == nil then return nil end
  if key == STATE then return RANKS[string.match(text, '^%s*(.-)%s*$')] end
  local throttle = tonumber(text)
  return throttle and throttle >= 0 and throttle <= 1 and throttle or nil
end

-- 1. Whoever holds the lease publishes. A lease that ran out while nobody took over is renewed.
local lease, held = message.lease, hash_of(LEASE)
local token = lease and tonumber(lease.token)
if held.token and tonumber(held.token) ~= token then
  return { 'FENCED', held.owner or '' }
end
local fence = tonumber(text_of(FENCE) or '') or 0
if token and fence > token then
  return { 'FENCED', 'a runner that has ended since' }
end

-- 2. The ledger's own keys only, and nothing older than what is there.
local was = hash_of(SUMMARY)
local is_ours = was.ledger_id == message.ledger_id
if was.ledger_id and not is_ours and not message.adopt then
  return { 'OTHER_LEDGER', was.ledger_id }
end
local stored = is_ours and tonumber(was.version) or nil
if stored and message.version < stored and not message.is_fault then
  return { 'NOT_NEWER', 'version ' .. was.version .. ' is published' }
end

-- 3. Symbols that were published and are no longer: the caller must declare their keys.
local declared, dropped = {}, {}
for _, symbol in ipairs(symbols) do declared[symbol] = true end
for _, symbol in ipairs(retired) do declared[symbol] = true end
local was_published = {}
for symbol in string.gmatch(was.symbols or '', '[^,]+') do
  was_published[symbol] = true
  if not declared[symbol] and string.match(symbol, '^[A-Z0-9][A-Z0-9._-]*$') then
    dropped[#dropped + 1] = symbol
  end
end
if #dropped > 0 then return { 'UNDECLARED', table.concat(dropped, ',') } end

-- 4. Under a hold, and in a fault, nothing above FROZEN and 0.0.
local hold = text_of(HOLD)
if hold then hold = string.gsub(hold, '\n', '; ') end
local is_frozen = message.is_fault or hold ~= nil
local new = { [STATE] = is_frozen and 'FROZEN' or message.state }
local field = { [STATE] = 'state' }
local owner = { [STATE] = '' }
local guarded = { STATE }
for index, symbol in ipairs(symbols) do
  local key = throttle_key(index)
  new[key] = is_frozen and '0.0' or message.throttles[index]
  field[key] = 'throttle:' .. symbol
  owner[key] = symbol
  guarded[#guarded + 1] = key
end

-- 5. What somebody else wrote. What we wrote stands in the summary, which only this script writes;
--    in the writer's memory too, if it wrote this version. Without either, only less is a sign.
local written = message.written
if not (written and written.version == stored and was.fault == '') then written = nil end
local found, foreign, blocked, rises = {}, {}, nil, nil
for _, key in ipairs(guarded) do
  found[key] = text_of(key)
  local value, wanted = worth(key, found[key]), worth(key, new[key])
  local expected = written and written.values[key] or was[field[key]]
  local is_less = value ~= nil and value < wanted
  local differs
  if expected then
    differs = found[key] ~= expected and (value == nil or value ~= worth(key, expected))
  else
    differs = is_less
  end
  if found[key] and differs and (is_ours or not message.adopt) then
    for _, text in ipairs({ key, owner[key], found[key], expected or new[key] }) do
      foreign[#foreign + 1] = text
    end
    if is_less and message.acknowledged[key] ~= found[key] then blocked = blocked or key end
  end
  if wanted > (value or 0) then rises = rises or key end
end

local function answer(outcome, detail)
  local reply = { outcome, detail or '' }
  for _, text in ipairs(foreign) do reply[#reply + 1] = text end
  return reply
end

if message.is_probe then return answer('ACCEPTED') end
if now_ms > tonumber(message.valid_until) and not message.allow_stale
    and new[STATE] ~= 'FROZEN' then
  return answer('STALE', "the server's clock is past valid_until by "
    .. string.format('%.0f', now_ms - tonumber(message.valid_until)) .. ' ms')
end
if blocked then return answer('FOREIGN', blocked) end
if stored == message.version and rises then
  return answer('NOT_NEWER', 'version ' .. was.version .. ' is published, and '
    .. rises .. ' would rise')
end

-- 6. From here on everything is written.
local function put(key, value, is_mortal)
  redis.call('SET', key, value, 'PX', message.ttl_ms)
  if is_mortal and message.dead_man then redis.call('PEXPIREAT', key, message.valid_until) end
end

local function put_fields(flat)
  for first = 1, #flat, 1000 do
    redis.call('HSET', SUMMARY, unpack(flat, first, math.min(first + 999, #flat)))
  end
end

for _, key in ipairs(guarded) do put(key, new[key], true) end
for index in ipairs(symbols) do put(kpi_key(index), message.kpi_throttles[index], false) end

for index, symbol in ipairs(retired) do
  local first = 6 + 2 * #symbols + 2 * index - 1
  for _, key in ipairs({ KEYS[first], KEYS[first + 1] }) do
    local value = text_of(key)
    if was_published[symbol] or (value and value ~= '0.0') then
      put(key, '0.0', false)
    elseif value and redis.call('PTTL', key) < 0 then
      redis.call('PEXPIRE', key, message.ttl_ms)
    end
  end
end

redis.call('DEL', SUMMARY)
put_fields(message.summary)
if is_frozen then
  put_fields(message.frozen)
  put_fields({
    'version', string.format('%.0f', math.max(stored or 0, message.version)),
    'fault', message.is_fault and message.fault or 'held: ' .. hold,
  })
end
redis.call('PEXPIRE', SUMMARY, message.ttl_ms)

-- A transition's id is its number in the ledger, so that none is written twice.
local last = redis.pcall('XREVRANGE', TRANSITIONS, '+', '-', 'COUNT', 1)
if last.err or (was.ledger_id and not is_ours) then
  redis.call('DEL', TRANSITIONS)
  last = {}
end
local number = last[1] and tonumber(string.match(last[1][1], '^%d+')) or 0
for _, transition in ipairs(message.transitions) do
  if transition.number > number then
    number = transition.number
    -- A deleted entry's id can't be had again: not worth half a publication.
    redis.pcall('XADD', TRANSITIONS, 'MAXLEN', '~', message.transitions_max,
      string.format('%.0f-0', number), unpack(transition.fields))
  end
end
redis.call('PEXPIRE', TRANSITIONS, message.ttl_ms)

if token then
  redis.call('DEL', LEASE)
  redis.call('HSET', LEASE, 'token', lease.token, 'owner', lease.owner, 'claim', lease.claim)
  redis.call('PEXPIRE', LEASE, lease.ttl_ms)
  redis.call('SET', FENCE, lease.token)
end
return answer('ACCEPTED', hold)
