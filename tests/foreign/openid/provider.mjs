// A certified OpenID provider, told by one JSON text what it is: issuer, port, clients, accounts (claims by login), conform.
import { Provider } from 'oidc-provider'

const told = JSON.parse(process.env.TOLD)
const provider = new Provider(told.issuer, {
  clients: told.clients,
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: (context, resource) => ({ scope: '', audience: resource, accessTokenFormat: 'jwt' }),
    },
  },
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['preferred_username', 'name'], groups: ['groups'] },
  scopes: ['openid', 'groups'],
  conformIdTokenClaims: told.conform,
  pkce: { required: () => true },
  cookies: { keys: ['one for tests'] },
  findAccount: async (context, id) => told.accounts[id] && { accountId: id, claims: async () => ({ sub: id, ...told.accounts[id] }) },
})
provider.listen(told.port, '127.0.0.1', () => console.log('ready'))
