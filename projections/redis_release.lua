-- Gives the lease back. KEYS: lease. ARGV: the token. Returns 1 if it was ours.

if redis.pcall('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
