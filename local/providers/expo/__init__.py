"""The push service of Expo, as its documentation and its clients describe it."""
