document.getElementById("echo").addEventListener("submit", async (event) => {
  event.preventDefault();
  const response = await fetch("/echo", { method: "POST", body: event.target.text.value });
  document.getElementById("answer").textContent = await response.text();
});
