/** The version of this package, told in status reports; a test compares it with package.json. */
export const VERSION = '0.1.0'
