-- Who waits for the search, and who computes for it.

local HANDED_OVER = 'handed over'
local ASKER_PATIENCE = 10000 -- ms after which an agent that has not asked again does not count as waiting

local function add_askers(sid, agents)
  local key = sweep_key(sid, 'askers')
  for _, agent in ipairs(agents) do redis.call('ZADD', key, int(now), agent) end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now - ASKER_PATIENCE))
  redis.call('PEXPIRE', key, ASKER_PATIENCE)
end

-- The next one may ask; only who holds the right can give it back.
local function end_asking(sid, session)
  local key = sweep_key(sid, 'asking')
  if given(session) and redis.call('GET', key) == session then redis.call('DEL', key) end
end

-- Suggestions came: all that waited claim; who gets none asks again.
local function wake_askers(sid)
  local waiting = redis.call('ZCARD', sweep_key(sid, 'askers'))
  if waiting > 0 then
    wake(sid, waiting)
    redis.call('DEL', sweep_key(sid, 'askers'))
  end
end
