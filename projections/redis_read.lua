-- Returns what is published, "" for what isn't there: state, ledger_id, version, valid_until,
-- symbols, fault, hold, the lease's owner and token. KEYS: state, summary, hold, lease.

local function text(value) return type(value) == 'string' and value or '' end
local function texts(key, ...)
  local values = redis.pcall('HMGET', key, ...)
  return values.err and {} or values
end
local was = texts(KEYS[2], 'ledger_id', 'version', 'valid_until', 'symbols', 'fault')
local held = texts(KEYS[4], 'owner', 'token')
local state, hold = redis.pcall('GET', KEYS[1]), redis.pcall('GET', KEYS[3])
return {
  -- A state or a hold of another type is there, and isn't a permission.
  type(state) == 'table' and '(not a string)' or text(state),
  text(was[1]), text(was[2]), text(was[3]), text(was[4]), text(was[5]),
  type(hold) == 'table' and '(not a string)' or text(hold),
  text(held[1]), text(held[2]),
}
