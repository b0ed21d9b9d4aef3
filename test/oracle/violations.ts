/** What peers did that they must not, where the link goes on all the same. For tests to look at. */
export const violations: string[] = []
