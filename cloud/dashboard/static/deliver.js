// Brings the token to the program that waits for it. Without scripts the person presses
// the button.
document.querySelector("form.deliver").requestSubmit();
