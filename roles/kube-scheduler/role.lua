-- Runs kube-scheduler on a master: its certificate, kubeconfig and unit.

local controller = require "lib.controller"

return controller({
  name = "kube-scheduler",
  short = "scheduler",
  port = 10259,
  plain_port = 10251,
  params = {},
  flags = function()
    return {}
  end,
  keys = function()
    return {}
  end,
})
