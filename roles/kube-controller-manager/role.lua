-- Runs kube-controller-manager on a master: its certificate, kubeconfig and unit. It does not sign certificates of kubelets: for that
-- it would need the authority's key, which is on no master.

local controller = require "lib.controller"

return controller({
  name = "kube-controller-manager",
  short = "controller-manager",
  port = 10257,
  plain_port = 10252,
  params = {
    service_account_key = { type = "string", default = "sa", doc = "The pair that signs service account tokens: `NAME.pem`, `NAME-key.pem`." },
    service_cidr = { type = "string", default = "192.168.0.0/16", doc = "Addresses of services." },
  },
  flags = function(p, file)
    return {
      "--service-account-private-key-file=" .. file(p.service_account_key .. "-key"),
      "--root-ca-file=" .. file("ca"),
      "--use-service-account-credentials=true",
      "--service-cluster-ip-range=" .. p.service_cidr,
      "--controllers=*,bootstrapsigner,tokencleaner",
    }
  end,
  keys = function(p)
    return { p.service_account_key .. "-key" }
  end,
})
