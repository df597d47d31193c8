CUSTOM_TEMPLATES = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "Digits": "a photo of the digit {}.",
}
