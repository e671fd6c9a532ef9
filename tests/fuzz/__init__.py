"""Random files and settings: each is read right or refused in a sentence. `make fuzz` tries 100,000 of them."""
