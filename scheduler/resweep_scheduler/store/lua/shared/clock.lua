-- The lease clock of a sweep: Redis time without the gaps in which nobody at all was heard (promise 5).
-- While the network or Redis is away no agent can renew its lease; so a gap between two calls counts at most as max_gap
-- (a third of the shortest lease in use), and those who come back have time to be heard before their leases end.
local function lease_clock(sid)
  local key = sweep_key(sid)
  local clock = redis.call('HMGET', key, 'tick', 'clock', 'max_gap', 'state')
  local tick = tonumber(clock[1] or now)
  local time = tonumber(clock[2] or now)
  local gap = math.max(0, math.min(now - tick, tonumber(clock[3] or 20000)))
  time = time + gap
  -- A late heartbeat must not bring a removed sweep back.
  if clock[4] then redis.call('HSET', key, 'tick', int(now), 'clock', int(time)) end
  return time
end

local function tighten_gap(sid, lease_ms)
  local gap = math.max(1, math.floor(lease_ms / 3))
  local known = tonumber(redis.call('HGET', sweep_key(sid), 'max_gap') or gap)
  if gap < known then redis.call('HSET', sweep_key(sid), 'max_gap', int(gap)) end
end
