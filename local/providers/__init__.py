"""The push services of Apple, Google and Expo, and the phones that they reach."""
