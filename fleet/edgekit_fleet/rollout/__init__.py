"""Pure decisions of a rollout: plan, rings, states, counting, gates, judge, reducers.

Nothing in here does IO or reads a clock; time is passed in. `edgekit_fleet.service.reconciler` acts.
"""
