/** The run cannot be made, or broke off: the message is for the person, and the exit code is 1. */
export class StartError extends Error {
  override readonly name = 'StartError'
}
