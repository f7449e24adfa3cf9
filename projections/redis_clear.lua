-- Ends the hold. KEYS: hold. Returns 1 if there was one.

return redis.call('DEL', KEYS[1])
