-- A client of the apiserver on this host: its certificate, issued for a user and a group, and the kubeconfig that shows it.
-- The folder of the certificates and the authority's certificate in it come from role `pki`.

return {
  summary = "a client of the apiserver: certificate and kubeconfig",

  params = {
    client = { type = "string", required = true, doc = "What its files are called: `CLIENT.pem`, `CLIENT-key.pem`." },
    user = { type = "string", required = true, doc = "Who it is: the certificate's common name." },
    user_group = { type = "string", default = "", doc = "The group of that user, the certificate's organization; that of `pki_names` when empty." },
    kubeconfig = { type = "string", default = "", doc = "The kubeconfig to write; none when empty." },
    server = { type = "string", default = "https://127.0.0.1:6443", doc = "Where it finds the apiserver." },
    embed = { type = "boolean", default = false, doc = "Whether the kubeconfig holds certificate and key, instead of naming their files." },
    serving_names = {
      type = "list",
      default = {},
      doc = "Names and addresses under which it serves with the same certificate. A certificate without is good for a client only.",
    },
    pki_folder = { type = "string", required = true, doc = "Folder of the certificate authority on the controller." },
    pki_names = { type = "map", default = {}, doc = "What certificates say of their owner; see role `pki`." },
    ssl_folder = { type = "string", default = "/etc/kubernetes/server/ssl", doc = "Folder of a master's certificates." },
    master_owner = { type = "string", default = "root", doc = "Owner of the files. When empty, owners are left alone." },
    lifetime = { type = "string", default = "5y", doc = "How long the certificate is valid." },
    renew_before = { type = "string", default = "90d", doc = "How long before its end it is issued again." },
    issued_after = { type = "integer", default = 0, doc = "Seconds since 1970: what was issued before is issued again. For playbooks/renew-certs.lua." },
  },

  run = function(host, p)
    local owner = p.master_owner ~= "" and p.master_owner or nil
    local certificate, key = p.ssl_folder .. "/" .. p.client .. ".pem", p.ssl_folder .. "/" .. p.client .. "-key.pem"
    host:cert({
      authority = p.pki_folder,
      path = certificate,
      key = key,
      common_name = p.user,
      organization = p.user_group ~= "" and p.user_group or p.pki_names:get("organization"),
      organizational_unit = p.pki_names:get("unit"),
      country = p.pki_names:get("country"),
      state = p.pki_names:get("state"),
      locality = p.pki_names:get("locality"),
      sans = p.serving_names,
      usages = #p.serving_names > 0 and "both" or "client",
      key_type = "rsa:2048",
      lifetime = p.lifetime,
      renew_before = p.renew_before,
      issued_after = p.issued_after,
      mode = "0644",
      key_mode = "0600",
      owner = owner,
      group = owner,
    }, { name = "certificate " .. p.client })
    if p.kubeconfig ~= "" then
      host:kubeconfig({
        path = p.kubeconfig,
        server = p.server,
        certificate_authority = p.ssl_folder .. "/ca.pem",
        user = p.user,
        certificate = certificate,
        key = key,
        embed = p.embed,
        mode = "0600",
        owner = owner,
        group = owner,
        parents = true,
      })
    end
  end,
}
