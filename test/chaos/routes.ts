import net from 'node:net'

/**
 * Leads every dial of this process to a broker's port through the proxy that stands for the network between the two.
 * Nodes learn the brokers' own addresses from the brokers: an address of the proxy given to `connect` alone would be
 * bypassed by the next link.
 */
export function leadThrough(routes: Readonly<Record<number, number>>): void {
  const connect = net.connect as (options: net.TcpNetConnectOpts) => net.Socket
  Object.assign(net, {
    connect: (options: net.TcpNetConnectOpts) => connect({ ...options, port: routes[options.port] ?? options.port }),
  })
}
