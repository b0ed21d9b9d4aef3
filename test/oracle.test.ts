/** The oracle, a second implementation written from SPEC.md (`test/oracle/`), against the vectors. */
import t from 'tap'
import { VECTOR_FILES, judgeVectors } from './oracle/index.ts'

t.test('the oracle reads every vector, and makes its bytes', async (t) => {
  for (const name of VECTOR_FILES) t.same(judgeVectors(name), [], name)
})
