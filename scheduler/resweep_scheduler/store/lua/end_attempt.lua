-- The owner says how its attempt ended; what follows is decided here, once, by the rules of shared/ending.lua.
-- KEYS[1] run hash · args: run_id, attempt, nonce, exit_code | absent (no status), signal | absent, reason, preempted, killed,
--   launched (absent: true)
-- returns {hold: owner (recorded now) | ended (recorded before) | stale | gone, state, reason}
-- from → to: running → finished, failed, crashed, killed, preempted · preempting → finished, preempted, failed, killed
-- include: base, sweeps, runs, stopping, ending
return reply(report_end(args))
