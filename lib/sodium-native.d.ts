// sodium-native ships no types, and @types/sodium-native describes version 2: what is used is declared here.
declare module 'sodium-native' {
  type View = Uint8Array
  interface Sodium {
    crypto_aead_chacha20poly1305_ietf_encrypt(
      c: View,
      m: View,
      ad: View | null,
      nsec: null,
      npub: View,
      k: View,
    ): number
    crypto_aead_chacha20poly1305_ietf_decrypt(
      m: View,
      nsec: null,
      c: View,
      ad: View | null,
      npub: View,
      k: View,
    ): number
    crypto_aead_xchacha20poly1305_ietf_encrypt(
      c: View,
      m: View,
      ad: View | null,
      nsec: null,
      npub: View,
      k: View,
    ): number
    crypto_aead_xchacha20poly1305_ietf_decrypt(
      m: View,
      nsec: null,
      c: View,
      ad: View | null,
      npub: View,
      k: View,
    ): number
    crypto_scalarmult(shared: View, secretKey: View, publicKey: View): void
    crypto_scalarmult_base(publicKey: View, secretKey: View): void
    crypto_sign_keypair(publicKey: View, secretKey: View): void
    crypto_sign_seed_keypair(publicKey: View, secretKey: View, seed: View): void
    crypto_sign_detached(signature: View, message: View, secretKey: View): void
    crypto_sign_verify_detached(signature: View, message: View, publicKey: View): boolean
    crypto_generichash(hash: View, input: View, key?: View): void
    crypto_generichash_batch(hash: View, inputs: View[], key?: View): void
    randombytes_buf(target: View): void
    sodium_memcmp(a: View, b: View): boolean
    sodium_memzero(target: View): void
    sodium_malloc(bytes: number): Buffer
  }
  const sodium: Sodium
  export default sodium
}
