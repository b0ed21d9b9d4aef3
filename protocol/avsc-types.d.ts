/** What avsc declares only for its main module, which loads its services, files and streams as well. */
declare module 'avsc/lib/types.js' {
  import type avsc from 'avsc'

  const exported: {
    readonly Type: typeof avsc.Type
    readonly builtins: typeof avsc.types
  }
  export default exported
}
