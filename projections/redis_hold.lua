-- Sets a hold, and freezes what is published at once: whoever publishes next may be gone.
--
-- KEYS: hold, state, summary, then the throttle key of each symbol.
-- ARGV: the hold's line, time to live in ms, then the summary's fields and values when frozen.
--
-- Holds of several requests stand there as lines; a key of another type is a hold, and is left.

local held = redis.pcall('GET', KEYS[1])
if not held or held == '' then
  redis.call('SET', KEYS[1], ARGV[1])
elseif type(held) == 'string'
    and not string.find('\n' .. held .. '\n', '\n' .. ARGV[1] .. '\n', 1, true) then
  redis.call('SET', KEYS[1], held .. '\n' .. ARGV[1])
end
redis.call('SET', KEYS[2], 'FROZEN', 'PX', ARGV[2])
for index = 4, #KEYS do redis.call('SET', KEYS[index], '0.0', 'PX', ARGV[2]) end
local ledger = redis.pcall('HGET', KEYS[3], 'ledger_id')
if type(ledger) == 'string' then redis.call('HSET', KEYS[3], unpack(ARGV, 3)) end
return 1
