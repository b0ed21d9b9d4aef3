/** What a request of the oracle ends with when it does not end with a reply: a code of SPEC 12, by the rules of SPEC 6.2. */
export class Failure extends Error {
  readonly code: string

  constructor(code: string, message: string = code) {
    super(message)
    this.name = 'Failure'
    this.code = code
  }
}
