-- One agent asks for one run; the rule is in shared/claiming.lua.
-- KEYS[1] sweep hash · args: sid, agent, nonce ('<session>.<seq>'), lease_ms, preemptible, offer | absent
-- returns {outcome, reason, next_index, ready, run…}: see shared/claiming.lua
-- from → to: pending, preempted → running · sweep: pending → running, running → finished
-- include: base, clock, sweeps, runs, stopping, ending, adding, claiming
return reply(claim_run(args))
