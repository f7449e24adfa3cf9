-- Takes the lease, unless somebody else's is in force.
--
-- KEYS: lease, fence. ARGV: owner, time to live in ms, token that may be replaced ('' for none), the
-- claim that it is taken by, claims that may be replaced. Returns {1, token} or {0, token, owner, ms
-- until it runs out} of who holds it.
--
-- A claim is made before the lease is asked for. So a lease whose token never came back, because the
-- answer was lost or the asker killed, is still known as one's own, and can be taken again.
-- A token is higher than every one before, and no lower than the server's time in ms: it stays so
-- even if the server has lost its data since.

local LEASE, FENCE = KEYS[1], KEYS[2]
local held = redis.pcall('HMGET', LEASE, 'token', 'owner', 'claim')
if held.err then redis.call('DEL', LEASE) end
local ours = held[1] == ARGV[3]
for index = 4, #ARGV do ours = ours or held[3] == ARGV[index] end
if held[1] and not ours then
  return { 0, held[1], held[2] or '', redis.call('PTTL', LEASE) }
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local fence = redis.pcall('GET', FENCE)
fence = type(fence) == 'string' and tonumber(fence) or 0
local before = math.max(fence, tonumber(ARGV[3]) or 0, tonumber(held[1] or 0) or 0)
local token = string.format('%.0f', math.max(before + 1, now_ms))
redis.call('SET', FENCE, token)
redis.call('DEL', LEASE)
redis.call('HSET', LEASE, 'token', token, 'owner', ARGV[1], 'claim', ARGV[4])
redis.call('PEXPIRE', LEASE, ARGV[2])
return { 1, token }
