-- The claim rule. One agent gets one run, and nobody else gets it: expired leases are reaped first, then the run queue is
-- served, then runs that the search suggested before, then the offer that the agent computed ahead; else the agent is told
-- to ask, wait or go. The same claim again (same nonce) gives the same run; a claim that arrives after a newer one of its
-- session takes nothing.
-- ask: sid, agent, nonce ('<session>.<seq>'), lease_ms, preemptible, offer | absent
-- returns {outcome: run | ask | wait | done | unregistered | late | lost | taken | unknown, reason, next_index,
--   run…, ready (how many suggested runs wait)}
local function claim_run(ask)
  local sid, key = ask.sid, sweep_key(ask.sid)
  local sweep_state = redis.call('HGET', key, 'state')
  if not sweep_state then return { outcome = 'unknown' } end

  local function answer(outcome, more)
    more = more or {}
    more.outcome = outcome
    more.next_index = tonumber(redis.call('HGET', key, 'next_index'))
    return more
  end

  local function hand_out(rid, run)
    return answer('run', {
      run_id = rid, attempt = run.attempt, nonce = run.nonce, index = tonumber(redis.call('HGET', run_key(rid), 'index')),
      params = redis.call('HGET', sweep_key(sid, 'params'), rid), step = tonumber(run.step),
      checkpoint = redis.call('GET', run_key(rid, 'checkpoint')) or nil, claimed_at = tonumber(run.claimed),
      ready = redis.call('LLEN', sweep_key(sid, 'ready')),
    })
  end

  -- The agent's record recognises calls that come twice or too late.
  local session, seq = string.match(ask.nonce, '^([^.]+)%.(%d+)$')
  local agent = load_agent(sid, ask.agent)
  if not agent or agent.session ~= session then return answer('unregistered') end
  if tonumber(seq) < agent.seq then return answer('late') end
  if tonumber(seq) == agent.seq and given(agent.claimed) then
    local run = load_run(agent.claimed)
    if hold_of(run, agent.attempt, ask.nonce) == 'owner' then return hand_out(agent.claimed, run) end
    return answer('lost')
  end

  local clock = lease_clock(sid)
  reap(sid, clock)

  local function next_in(list, state)
    while true do
      local rid = redis.call('LPOP', sweep_key(sid, list))
      if not rid then return nil end
      local run = load_run(rid)
      if run and run.state == state then return rid, run end
    end
  end

  local function find_run()
    local rid, run = next_in('queue', 'preempted')
    if rid then return rid, run end
    local closed = redis.call('HGET', key, 'closed')
    if not holds_back(closed) then
      rid, run = next_in('ready', 'pending')
      if rid then return rid, run end
    end
    if given(closed) or not ask.offer then return nil end
    local taken = add_offer(sid, ask.offer)
    if taken then return nil, nil, taken end
    return next_in('ready', 'pending')
  end

  local function idle(outcome, reason)
    agent.seq, agent.claimed, agent.run, agent.waiting = tonumber(seq), '', '', outcome == 'wait'
    save_agent(sid, ask.agent, agent)
    return answer(outcome, { reason = reason })
  end

  sweep_state = settle_sweep(sid)
  local reason = redis.call('HGET', key, 'reason')
  if sweep_state == 'finished' or sweep_state == 'canceled' then return idle('done', reason) end
  if sweep_state == 'paused' then return idle('wait', 'paused') end

  local rid, run, taken = find_run()
  if taken then return answer('taken', { run_id = taken }) end
  if not rid then
    if not given(redis.call('HGET', key, 'closed')) then return idle('ask') end
    if settle_sweep(sid) == 'finished' then return idle('done', redis.call('HGET', key, 'reason')) end
    return idle('wait', 'others run')
  end

  local before = run.state
  run.attempt, run.nonce, run.agent, run.claimed = run.attempt + 1, ask.nonce, ask.agent, int(now)
  tighten_gap(sid, ask.lease_ms)
  redis.call('HSET', run_key(rid), 'attempt', int(run.attempt), 'nonce', run.nonce, 'agent', run.agent, 'claimed', run.claimed,
    'claim_step', run.step, 'preemptible', ask.preemptible and '1' or '0', 'confirmed', '0', 'seq', '0', 'reason', '')
  redis.call('HDEL', run_key(rid), 'lapsed', 'was_preempting', 'assumed', 'stop', 'pruned', 'over', 'ended', 'exit_code', 'signal',
    'said')
  redis.call('ZADD', sweep_key(sid, 'leases'), int(clock + ask.lease_ms), rid)
  set_run_state(rid, run, 'running')
  if sweep_state == 'pending' then set_sweep_state(sid, 'pending', 'running') end
  agent.seq, agent.claimed, agent.attempt, agent.run, agent.waiting = tonumber(seq), rid, run.attempt, rid, false
  save_agent(sid, ask.agent, agent)
  event(sid, 'claimed', rid, run, before, 'running', nil)
  return hand_out(rid, run)
end
