-- Takes the lease, unless somebody else's is in force.
--
-- KEYS: lease, fence. ARGV: owner, time to live in ms, token that may be replaced ('' for none).
-- Returns {1, token} or {0, token, owner, ms until it runs out} of who holds it.
--
-- A token is higher than every one before, and no lower than the server's time in ms: it stays so
-- even if the server has lost its data since.

local LEASE, FENCE = KEYS[1], KEYS[2]
local held = redis.pcall('HMGET', LEASE, 'token', 'owner')
if held.err then redis.call('DEL', LEASE) end
if held[1] and held[1] ~= ARGV[3] then
  return { 0, held[1], held[2] or '', redis.call('PTTL', LEASE) }
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local fence = redis.pcall('GET', FENCE)
fence = type(fence) == 'string' and tonumber(fence) or 0
local token = string.format('%.0f', math.max(fence + 1, (tonumber(ARGV[3]) or 0) + 1, now_ms))
redis.call('SET', FENCE, token)
redis.call('DEL', LEASE)
redis.call('HSET', LEASE, 'token', token, 'owner', ARGV[1])
redis.call('PEXPIRE', LEASE, ARGV[2])
return { 1, token }
