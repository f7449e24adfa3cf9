-- Ends the hold of one request, and nobody else's. KEYS: hold. ARGV: what its line ends with.
-- Returns 1 if there was one.

local held = redis.pcall('GET', KEYS[1])
if type(held) ~= 'string' then return 0 end
local kept, ended = {}, 0
for line in string.gmatch(held, '[^\n]+') do
  if string.sub(line, -#ARGV[1]) == ARGV[1] then
    ended = 1
  else
    kept[#kept + 1] = line
  end
end
if ended == 1 and #kept == 0 then redis.call('DEL', KEYS[1]) end
if ended == 1 and #kept > 0 then redis.call('SET', KEYS[1], table.concat(kept, '\n')) end
return ended
