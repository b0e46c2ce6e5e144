-- kube-controller-manager and kube-scheduler on every master, beside kube-apiserver: one of each is the leader and works.
-- The apiserver has to serve (playbooks/apiserver.lua).
--
--   kplay playbooks/controllers.lua -i inventory/hdss7.yaml

local cluster = require "cluster"

play {
  name = "configuration of controllers",
  hosts = "masters",
  run = function(host)
    cluster.controllers(host, { "configure" })
  end,
}

-- One master at a time: while one restarts, another one is the leader.
play {
  name = "controllers, one master at a time",
  hosts = "masters",
  serial = 1,
  any_error_stops = true,
  run = function(host)
    cluster.controllers(host, { "serve", "check" })
  end,
}
