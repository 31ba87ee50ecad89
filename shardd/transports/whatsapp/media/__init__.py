"""The files that messages carry: where they come from, what they are, and how much memory they take."""
