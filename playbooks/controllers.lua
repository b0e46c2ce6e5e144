-- kube-controller-manager and kube-scheduler on every master, beside kube-apiserver: one of each is the leader and works.
-- The apiserver has to serve (playbooks/apiserver.lua).
--
--   kplay playbooks/controllers.lua -i inventory/hdss7.yaml

local cluster = require "cluster"
local rolling = require "rolling"

rolling.ask()

play {
  name = "configuration of new controllers",
  hosts = "masters",
  any_error_stops = true,
  run = function(host)
    if not rolling.has_controllers(host) then
      cluster.controllers(host, { "configure" })
    end
  end,
}

-- One master at a time: while one restarts, another one is the leader. Controllers that are there already get their configuration
-- here, so that a bad value is undone on the one master that got it.
play {
  name = "controllers, one master at a time",
  hosts = "masters",
  order = rolling.order,
  serial = 1,
  any_error_stops = true,
  undo_on_failure = true,
  run = function(host)
    rolling.controllers(host, { "configure" })
    cluster.controllers(host, { "serve", "check" })
  end,
}
