"""The online-update server: tails deltas and answers score, embed and retrieve requests. Not built yet."""
