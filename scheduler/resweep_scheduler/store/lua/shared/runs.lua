-- A run's record and how an attempt stands to it.

local OWNED = { running = true, preempting = true }

local function load_run(rid)
  local names = { 'state', 'sweep', 'attempt', 'nonce', 'agent', 'step', 'claim_step', 'stop', 'lapsed',
    'preemptible', 'confirmed', 'reason', 'claimed', 'seq', 'metric', 'initialised', 'was_preempting',
    'spared', 'over' }
  local values = redis.call('HMGET', run_key(rid), unpack(names))
  if not values[1] then return nil end
  local run = {}
  for i, name in ipairs(names) do run[name] = values[i] or '' end
  run.attempt = tonumber(run.attempt) or 0
  return run
end

-- 'owner', 'lapsed' (its lease ran out, nobody took the run), 'ended' (this attempt's end is recorded), 'stale', 'gone'.
local function hold_of(run, attempt, nonce)
  if not run then return 'gone' end
  if run.attempt ~= attempt or run.nonce ~= nonce then return 'stale' end
  if OWNED[run.state] then return 'owner' end
  if run.state == 'killed' and run.lapsed == '1' then return 'stale' end
  if run.lapsed == '1' then return 'lapsed' end
  return 'ended'
end

-- The same for what a script writes. After a rollback Redis may not know the attempt's claim yet: its agent will adopt the
-- run, or end the script if that is refused; until then the script keeps what it has, and does not fall silent.
local function hold_of_writer(run, attempt, nonce)
  local hold = hold_of(run, attempt, nonce)
  local is_behind = hold == 'stale' and given(run.sweep) and run.attempt < attempt
  if is_behind and (OWNED[run.state] or run.state == 'pending' or run.state == 'preempted') then return 'lapsed' end
  return hold
end

-- Whatever an attempt writes shows that its child was launched.
local function confirm(rid, run)
  if run.confirmed ~= '1' then redis.call('HSET', run_key(rid), 'confirmed', '1') end
end

local function set_run_state(rid, run, after)
  redis.call('HSET', run_key(rid), 'state', after)
  if given(run.sweep) and run.state ~= after then
    redis.call('HINCRBY', sweep_key(run.sweep), 'n:' .. run.state, -1)
    redis.call('HINCRBY', sweep_key(run.sweep), 'n:' .. after, 1)
  end
  run.state = after
end

-- That an attempt is lost is an assumption: what was counted on it is taken back when its owner returns.
local COUNTED = { 'fruitless', 'unlucky', 'retries_failed', 'retries_crashed', 'busy_ms' }

local function remember_counts(rid)
  local values, counts = redis.call('HMGET', run_key(rid), unpack(COUNTED)), {}
  for i, name in ipairs(COUNTED) do counts[name] = values[i] or '0' end
  redis.call('HSET', run_key(rid), 'assumed', cjson.encode(counts))
end

local function restore_counts(rid)
  local text = redis.call('HGET', run_key(rid), 'assumed')
  if not text then return end
  for name, value in pairs(cjson.decode(text)) do redis.call('HSET', run_key(rid), name, value) end
  redis.call('HDEL', run_key(rid), 'assumed')
end

-- What an agent (one slot) holds, for people to see and for late calls to be recognised: session, sequence number, run.
local function load_agent(sid, agent)
  local text = redis.call('HGET', sweep_key(sid, 'agents'), agent)
  return text and cjson.decode(text) or nil
end

local function save_agent(sid, agent, record)
  redis.call('HSET', sweep_key(sid, 'agents'), agent, cjson.encode(record))
  redis.call('ZADD', sweep_key(sid, 'seen'), int(now), agent)
end

-- Says for a while that a process has left, so that its registration, held up in the network, does not bring it back.
local function left_key(sid, agent, session) return sweep_key(sid, 'left:' .. session .. ':' .. agent) end

-- Whether a newer process introduced itself as this agent: then the one that made the nonce is gone for good.
local function was_replaced(sid, agent, nonce)
  local record, session = load_agent(sid, agent), string.match(nonce, '^([^.]+)%.')
  for _, past in ipairs(record and record.past or {}) do
    if past == session then return true end
  end
  return false
end

-- Others end attempts, too: that does not mean that the agent was seen.
local function free_agent(sid, agent, rid)
  local record = given(agent) and load_agent(sid, agent)
  if record and record.run == rid then
    record.run = ''
    redis.call('HSET', sweep_key(sid, 'agents'), agent, cjson.encode(record))
  end
end
